"""From headers to shapes: architecture by architecture, parts of a model, and keys that make no sense."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.gguf_expert_shapes import deepseek2, gpt_oss, mixtral, qwen3moe
from tests.support.gguf_headers import header_of
from tests.support.gguf_recurrent_shapes import falcon_h1, jamba, lfm2, mamba, mamba2
from tests.support.gguf_shapes import Model, Size, gemma2, gemma3, gpt2, llama, phi3, write_model

from rbee_hive.domain.fit.model_layers import State
from rbee_hive.domain.fit.model_shape import Experts, ModelShape, shape_of
from rbee_hive.domain.models.gguf import GgufHeader, read_header
from rbee_hive.domain.models.gguf_values import Omitted, Value
from rbee_shared.errors import ModelInvalidError

SIZE = Size(width=512, layers=8, heads=8, heads_kv=4, feed_forward=1536, n_vocab=1000)


def shape(model: Model, changed: Mapping[str, Value] | None = None, *, without: tuple[str, ...] = ()) -> ModelShape:
    return shape_of([header_of(model, changed, without=without)])


def windows(found: ModelShape) -> str:
    return "".join("w" if layer.is_windowed else "." for layer in found.layers)


def memory(found: ModelShape) -> str:
    """By layer: c for a cache, s for a state, b for both, . for neither."""
    marks = {(True, False): "c", (False, True): "s", (True, True): "b", (False, False): "."}
    return "".join(marks[layer.has_cache and layer.heads_kv > 0, layer.has_state] for layer in found.layers)


def as_architecture(name: str, size: Size = SIZE) -> Model:
    return replace(llama(size), architecture=name)


def test_a_llama() -> None:
    found = shape(llama(SIZE))

    assert (found.architecture, found.name, found.n_ctx_train) == ("llama", "empty", 32_768)
    assert (found.n_layers, found.n_embd, found.n_vocab, found.n_merges) == (8, 512, 1000, 0)
    assert {(layer.heads, layer.heads_kv, layer.key_dim, layer.value_dim) for layer in found.layers} == {(8, 4, 64, 64)}
    assert {(layer.query_values, layer.key_values, layer.value_values) for layer in found.layers} == {(512, 256, 256)}
    assert (memory(found), windows(found)) == ("cccccccc", "........")
    assert (found.window, found.is_latent, found.has_gate, found.is_tied) == (0, False, True, False)
    assert (found.experts, found.state) == (Experts(), State())
    assert found.weights.looked_up_bytes == 512 * 1000 * 2


def test_heads_by_layer_and_dimensions_that_the_width_gives() -> None:
    heads = (8, 8, 4, 4, 8, 8, 4, 0)
    found = shape(
        llama(SIZE),
        {"attention.head_count": heads, "feed_forward_length": tuple(range(8))},
        without=("attention.head_count_kv", "attention.key_length", "attention.value_length"),
    )

    assert tuple(layer.heads_kv for layer in found.layers) == heads
    assert {layer.key_dim for layer in found.layers} == {64}
    assert tuple(layer.feed_forward for layer in found.layers) == tuple(range(8))


def test_a_tied_embedding_and_a_table_of_positions_are_known() -> None:
    found = shape(gpt2(replace(SIZE, heads_kv=8, tied=True, n_ctx=100, kind="Q8_0")))

    assert found.is_tied
    assert found.weights.tied_kind == "Q8_0"
    assert found.weights.tied_bytes == 512 * 1000 * 34 // 32
    assert found.weights.looked_up_bytes == 512 * 1100 * 34 // 32
    assert not found.has_gate
    assert shape(phi3(SIZE)).has_gate, "both branches in one matrix"


def test_a_vocabulary_that_is_not_told_is_that_of_the_embedding() -> None:
    header = header_of(llama(SIZE))
    metadata = {**header.metadata, "tokenizer.ggml.tokens": (), "tokenizer.ggml.merges": Omitted("text", 7)}
    found = shape_of([replace(header, metadata=metadata)])

    assert (found.n_vocab, found.n_merges) == (1000, 7)


def test_a_model_may_have_no_name() -> None:
    header = header_of(llama(SIZE))

    assert shape_of([replace(header, metadata={**header.metadata, "general.name": 7})]).name == ""


@pytest.mark.parametrize(
    ("model", "window", "pattern"),
    [
        pytest.param(gemma2(SIZE, window=1024), 1024, "w.w.w.w.", id="gemma2"),
        pytest.param(gemma3(SIZE, window=512), 512, "wwwww.ww", id="gemma3"),
        pytest.param(gemma3(SIZE, window=0), 0, "........", id="gemma3 without"),
        pytest.param(gpt_oss(SIZE, experts=8, used=4, window=128), 128, "w.w.w.w.", id="gpt-oss"),
        pytest.param(phi3(SIZE), 0, "........", id="phi3: llama.cpp does not use it"),
        pytest.param(as_architecture("llama4"), 8192, "www.www.", id="llama4"),
        pytest.param(as_architecture("exaone4"), 0, "........", id="exaone4, small"),
        pytest.param(as_architecture("exaone-moe"), 128, "www.www.", id="exaone-moe"),
        pytest.param(as_architecture("cohere2"), 0, "........", id="cohere2 without"),
        pytest.param(as_architecture("smallthinker"), 0, "........", id="smallthinker without"),
    ],
)
def test_windows(model: Model, window: int, pattern: str) -> None:
    found = shape(model)

    assert (found.window, windows(found)) == (window, pattern)


@pytest.mark.parametrize(
    ("architecture", "keys", "window", "pattern"),
    [
        pytest.param("llama4", {"attention.sliding_window": 0}, 0, "........", id="llama4 without"),
        pytest.param("llama4", {"attention.sliding_window": 99}, 8192, "www.www.", id="llama4 knows better"),
        pytest.param("smallthinker", {"attention.sliding_window": 99}, 4096, ".www.www", id="smallthinker"),
        pytest.param("cohere2moe", {"attention.sliding_window": 99}, 99, ".www.www", id="the first sees all"),
        pytest.param(
            "gemma3",
            {"attention.sliding_window": 99, "attention.sliding_window_pattern": 2},
            99,
            "w.w.w.w.",
            id="another rhythm",
        ),
        pytest.param(
            "gemma3",
            {"attention.sliding_window": 99, "attention.sliding_window_pattern": 0},
            99,
            "wwwwwwww",
            id="no layer sees all",
        ),
        pytest.param(
            "gemma3",
            {"attention.sliding_window": 99, "attention.sliding_window_pattern": (True, False, True)},
            99,
            "w.w.....",
            id="layer by layer, cut short",
        ),
        pytest.param(
            "gemma4",
            {"attention.sliding_window": 99, "attention.sliding_window_pattern": (True,) * 4 + (False,) * 4},
            99,
            "wwww....",
            id="gemma4",
        ),
        pytest.param("gemma4", {"attention.sliding_window": 99}, 99, "........", id="gemma4 without a pattern"),
        pytest.param("qwen2", {"attention.sliding_window": 99}, 0, "........", id="an architecture that has none"),
    ],
)
def test_windows_as_the_keys_tell(architecture: str, keys: dict[str, Value], window: int, pattern: str) -> None:
    found = shape(as_architecture(architecture), keys)

    assert (found.window, windows(found)) == (window, pattern)


def test_the_large_exaone4_has_windows() -> None:
    found = shape(as_architecture("exaone4", replace(SIZE, layers=64)))

    assert (found.window, windows(found)) == (4096, "www." * 16)


def test_windowed_layers_may_have_other_heads() -> None:
    found = shape(
        gemma3(SIZE, window=512),
        {"attention.key_length_swa": 32, "attention.value_length_swa": 16, "attention.key_length": 128},
    )

    dims = {layer.is_windowed: (layer.key_dim, layer.value_dim) for layer in found.layers}
    assert dims == {True: (32, 16), False: (128, 64)}


@pytest.mark.parametrize(
    ("model", "layers", "state"),
    [
        pytest.param(mamba(SIZE), "ssssssss", State(3 * 1024, 16 * 1024, 1024, 0), id="mamba"),
        pytest.param(mamba2(SIZE), "ssssssss", State(3 * 1280, 128 * 1024, 1024, 256), id="mamba2"),
        pytest.param(jamba(SIZE), "ssscsssc", State(3 * 1024, 16 * 1024, 1024, 0), id="jamba"),
        pytest.param(falcon_h1(SIZE), "bbbbbbbb", State(3 * 1280, 128 * 1024, 1024, 256), id="falcon-h1"),
        pytest.param(lfm2(SIZE), "sscsscss", State(2 * 512, 0, 512, 0), id="lfm2"),
    ],
)
def test_states(model: Model, layers: str, state: State) -> None:
    found = shape(model)

    assert (memory(found), found.state) == (layers, state)


@pytest.mark.parametrize(
    ("architecture", "keys", "layers", "state"),
    [
        pytest.param("rwkv7", {"wkv.head_size": 64}, "s" * 8, State(2 * 512, 512 * 64, 1024, 0), id="rwkv7"),
        pytest.param(
            "arwkv7", {"wkv.head_size": 64, "token_shift_count": 1}, "s" * 8, State(512, 512 * 64, 1024, 0), id="arwkv7"
        ),
        pytest.param(
            "kimi-linear",
            {"kda.head_dim": 128, "ssm.conv_kernel": 4, "attention.head_count_kv": (0, 0, 0, 8) * 2},
            "ssscsssc",
            State(3 * 3 * 1024, 1024 * 128, 3 * 1024, 0),
            id="kimi-linear",
        ),
        pytest.param(
            "qwen3next",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 128, "ssm.group_count": 4},
            "ssscsssc",
            State(3 * 2048, 128 * 1024, 1024, 1024),
            id="qwen3next",
        ),
        pytest.param(
            "qwen35",
            {"ssm.inner_size": 1024, "ssm.state_size": 128, "attention.recurrent_layers": (True, False)},
            "sccccccc",
            State(0, 128 * 1024, 1024, 0),
            id="qwen35, layer by layer",
        ),
        pytest.param(
            "minimax-01", {"full_attention_interval": 2}, "scscscsc", State(0, 64 * 64 * 8, 512, 0), id="sums"
        ),
        pytest.param(
            "nemotron_h",
            {
                "attention.head_count_kv": (0, 4, 0, 0, 4, 0, 0, 0),
                "feed_forward_length": (0, 0, 512, 0, 0, 512, 0, 512),
                "ssm.inner_size": 1024,
                "ssm.state_size": 16,
            },
            "sc.sc.s.",
            State(0, 16 * 1024, 1024, 0),
            id="nemotron_h",
        ),
        pytest.param("deci", {"attention.head_count_kv": (4, 0) * 4}, "c.c.c.c.", State(), id="deci"),
        pytest.param("gemma4", {"attention.shared_kv_layers": 3}, "ccccc...", State(), id="gemma4 shares caches"),
        pytest.param("lfm2", {"attention.sliding_window": 9, "shortconv.l_cache": 3}, "c" * 8, State(), id="lfm2"),
    ],
)
def test_states_as_the_keys_tell(architecture: str, keys: dict[str, Value], layers: str, state: State) -> None:
    found = shape(as_architecture(architecture), keys)

    assert (memory(found), found.state) == (layers, state)


def test_short_convolutions_may_go_with_windows() -> None:
    found = shape(lfm2(SIZE), {"attention.sliding_window": 64})

    assert (found.window, windows(found)) == (64, "..w..w..")


def test_the_late_layers_of_gemma3n_have_no_cache_of_their_own() -> None:
    found = shape(as_architecture("gemma3n", replace(SIZE, layers=24)), {"attention.sliding_window": 512})

    assert memory(found) == "c" * 20 + "." * 4


def test_latent_attention() -> None:
    found = shape(deepseek2(replace(SIZE, head_dim=64), experts=8, used=2))

    assert found.is_latent
    assert found.latent_query_dim == 128
    assert {(layer.heads, layer.heads_kv, layer.key_values) for layer in found.layers} == {(8, 1, 576)}
    assert found.experts == Experts(8, 2, 384, has_shared=True)


@pytest.mark.parametrize(
    ("model", "experts"),
    [
        pytest.param(mixtral(SIZE, experts=8, used=2), Experts(8, 2, 1536), id="as wide as the rest"),
        pytest.param(
            qwen3moe(replace(SIZE, feed_forward=256), experts=32, used=8), Experts(32, 8, 256), id="own width"
        ),
    ],
)
def test_experts(model: Model, experts: Experts) -> None:
    assert shape(model).experts == experts


def test_the_most_experts_of_a_layer_count() -> None:
    model = mixtral(SIZE, experts=8, used=2)

    assert shape(model, {"expert_used_count": (1, 2, 3, 4, 4, 3, 2, 1)}).experts.used == 4


def test_layers_that_guess_ahead_are_not_used() -> None:
    found = shape(llama(SIZE), {"nextn_predict_layers": 2})

    assert found.n_layers == 6
    assert found.n_params == shape(llama(SIZE)).n_params, "their weights are counted, to be safe"


# ---- parts of a model


def _parts(tmp_path: Path) -> list[GgufHeader]:
    files = write_model(tmp_path / "model.gguf", llama(SIZE), tensors_per_part=30)
    headers = []
    for path in files:
        with path.open("rb") as file:
            headers.append(read_header(file, path.stat().st_size))
    return headers


def test_parts_in_any_order_are_the_whole(tmp_path: Path) -> None:
    parts = _parts(tmp_path)

    assert len(parts) == 3
    assert shape_of(parts) == shape_of(parts[::-1]) == shape(llama(SIZE))


def test_parts_that_do_not_make_a_model(tmp_path: Path) -> None:
    first, second, third = _parts(tmp_path)
    other = replace(third, tensors=third.tensors[:-1])
    named_twice = replace(third, tensors=(*third.tensors[:-1], first.tensors[0]))
    for headers, reason in (
        ([], "0 of 1 parts"),
        ([first], "1 of 3 parts"),
        ([first, third], "2 of 3 parts"),
        ([first, second, second], "one is there twice"),
        ([first, second, other], "they do not match"),
        ([first, second, named_twice], "they do not match"),
        ([first, second, header_of(llama(SIZE))], "3 of 3 parts"),
    ):
        with pytest.raises(ModelInvalidError, match=reason):
            shape_of(headers)


def test_a_count_of_parts_that_is_none() -> None:
    header = header_of(llama(SIZE))

    for nonsense in ("three", -1, 1.5, (3,)):
        with pytest.raises(ModelInvalidError, match=r"split\.count"):
            shape_of([replace(header, metadata={**header.metadata, "split.count": nonsense})])


# ---- what is no language model, and what makes no sense


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        pytest.param({"general.architecture": "clip"}, "mmproj", id="projector"),
        pytest.param({"general.type": "mmproj"}, "mmproj", id="projector by its type"),
        pytest.param({"general.type": "adapter"}, "LoRA", id="adapter"),
        pytest.param({"general.type": "imatrix"}, "importance matrix", id="importance matrix"),
        pytest.param({"general.architecture": "bert"}, "an embedding model", id="embedding"),
        pytest.param({"general.architecture": "t5"}, "an encoder with a decoder", id="encoder"),
        pytest.param({"general.architecture": "llada"}, "diffusion", id="diffusion"),
        pytest.param({"general.architecture": "eagle3"}, "draft", id="draft head"),
        pytest.param({"general.architecture": ""}, r"general\.architecture", id="no name"),
        pytest.param({"general.architecture": 7}, r"general\.architecture", id="a number"),
    ],
)
def test_what_is_no_language_model(metadata: dict[str, Value], reason: str) -> None:
    header = header_of(llama(SIZE))

    with pytest.raises(ModelInvalidError, match=reason):
        shape_of([replace(header, metadata={**header.metadata, **metadata})])


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "context_length", "attention.head_count"])
def test_a_key_that_is_missing_is_named(key: str) -> None:
    without = (key, "attention.head_count_kv") if key == "attention.head_count" else (key,)
    with pytest.raises(ModelInvalidError, match=f"no llama.{key}"):
        shape(llama(SIZE), without=without)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 513),
        ("block_count", 9),
        ("block_count", 7),
        ("block_count", "eight"),
        ("block_count", True),
        ("block_count", 8.0),
        ("embedding_length", 0),
        ("embedding_length", 513),
        ("embedding_length", 2**40),
        ("context_length", -1),
        ("attention.head_count", (8,) * 7),
        ("attention.head_count", 2**63),
        ("attention.head_count", Omitted("uint32", 5000)),
        ("attention.head_count", 3),
        ("attention.head_count_kv", (4,) * 7 + (-4,)),
        ("attention.head_count_kv", (4,) * 7 + (1.5,)),
        ("attention.key_length", -64),
        ("nextn_predict_layers", 8),
        ("expert_used_count", 9),
        ("expert_used_count", 0),
    ],
)
def test_a_key_that_makes_no_sense_is_named(key: str, value: Value) -> None:
    keys: dict[str, Value] = {"expert_count": 8, "expert_used_count": 2, key: value}

    with pytest.raises(ModelInvalidError, match=key):
        shape(llama(SIZE), keys)


def test_a_pattern_of_windows_that_is_too_long_is_named() -> None:
    with pytest.raises(ModelInvalidError, match="sliding_window_pattern"):
        shape(gemma3(SIZE, window=9), {"attention.sliding_window_pattern": (True,) * 513})


def test_no_heads_and_no_state_make_no_model() -> None:
    with pytest.raises(ModelInvalidError, match="head_count"):
        shape(llama(SIZE), {"attention.head_count": 0, "attention.head_count_kv": 0})


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.7."])
def test_tensors_that_are_missing(name: str) -> None:
    header = header_of(llama(SIZE))
    tensors = tuple(tensor for tensor in header.tensors if not tensor.name.startswith(name))

    with pytest.raises(ModelInvalidError, match=r"token_embd|block_count"):
        shape_of([replace(header, tensors=tensors)])


def test_an_embedding_that_is_no_matrix() -> None:
    header = header_of(llama(SIZE))
    tensors = (replace(header.tensors[0], dims=(512,)), *header.tensors[1:])

    with pytest.raises(ModelInvalidError, match="embedding_length"):
        shape_of([replace(header, tensors=tensors)])
