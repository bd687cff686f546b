"""Contexts, caches, scratch and the estimate that they add up to. Against llama.cpp itself: the component tests."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.gguf_expert_shapes import deepseek2, qwen3moe
from tests.support.gguf_headers import header_of
from tests.support.gguf_recurrent_shapes import falcon_h1, jamba, mamba
from tests.support.gguf_shapes import Model, Size, gemma3, gpt2, llama

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS as WORKER_BATCH_TOKENS
from llm_worker_rbee.domain.context_size import default_n_ctx, default_slots
from llm_worker_rbee.engine.request import LoadRequest
from rbee_hive.domain.fit.context_plan import BATCH_TOKENS, ContextPlan, plan_context
from rbee_hive.domain.fit.estimate import Estimate, LoadRecord, Parts, corrected, estimate
from rbee_hive.domain.fit.kv_cache import kv_bytes
from rbee_hive.domain.fit.model_shape import ModelShape, shape_of
from rbee_hive.domain.fit.scratch import logits_bytes, mask_bytes, step_bytes
from rbee_hive.domain.fit.targets import Target, repacked_by, uses_flash_attention
from rbee_shared.contracts.tasks import Backend

MIB = 1024 * 1024
GIB = 1024 * MIB
TINYLLAMA = Size(2048, 22, 32, 4, None, 5632, 32_000, 2048, "Q4_0")
LLAMA_8B = Size(4096, 32, 32, 8, None, 14_336, 128_256, 131_072, "Q4_K")
CPU = Target("cpu", repacked_by("x86_64", {"avx2"}))


def shape(model: Model) -> ModelShape:
    return shape_of([header_of(model)])


# ---- the context


@given(
    n_ctx_train=st.integers(1, 1_000_000),
    heads=st.tuples(st.integers(1, 64), st.sampled_from([(8, 8), (32, 8), (16, 1)]), st.sampled_from([None, 64, 256])),
    slots=st.none() | st.integers(1, 256),
    free_bytes=st.integers(-GIB, 100 * GIB),
    backend=st.sampled_from(["cpu", "cuda", "metal", "vulkan"]),
)
def test_what_is_left_open_is_chosen_as_the_worker_chooses(
    n_ctx_train: int,
    heads: tuple[int, tuple[int, int], int | None],
    slots: int | None,
    free_bytes: int,
    backend: Backend,
) -> None:
    layers, (query, shared), head_dim = heads
    size = Size(1024, layers, query, shared, head_dim, 512, 300, n_ctx_train)
    wanted_slots = slots or default_slots(backend)

    plan = plan_context(shape(llama(size)), n_ctx=None, slots=slots, free_bytes=free_bytes, backend=backend)

    assert plan.slots == wanted_slots
    assert plan.n_ctx == default_n_ctx(
        n_ctx_train=n_ctx_train,
        slots=wanted_slots,
        token_bytes=2 * 2 * layers * shared * (1024 // query),
        free_bytes=max(0, free_bytes),
    )


def test_a_plan_is_what_the_worker_asks_for_unasked() -> None:
    asked, plan = LoadRequest.__dataclass_fields__, ContextPlan(1, 1)

    assert plan.is_unified == asked["is_unified"].default
    assert plan.kv_type == asked["kv_type"].default
    assert plan.flash_attention == asked["flash_attention"].default
    assert BATCH_TOKENS == WORKER_BATCH_TOKENS


def test_what_is_told_is_taken() -> None:
    plan = plan_context(shape(llama(Size())), n_ctx=1000, slots=None, free_bytes=0, backend="cuda")

    assert plan == ContextPlan(1000, 16)


def test_a_model_without_a_cache_gets_what_each_answer_would_like() -> None:
    plan = plan_context(shape(mamba(Size())), n_ctx=None, slots=4, free_bytes=0, backend="cpu")

    assert plan.n_ctx == 4 * 4096


@pytest.mark.parametrize(
    ("plan", "streams", "cells", "batch"),
    [
        pytest.param(ContextPlan(4096, 4), 1, 4096, 512, id="shared"),
        pytest.param(ContextPlan(1000, 1), 1, 1024, 512, id="rounded up"),
        pytest.param(ContextPlan(1000, 4, is_unified=False), 4, 256, 512, id="split"),
        pytest.param(ContextPlan(1000, 7, is_unified=False), 7, 256, 518, id="split in seven"),
        pytest.param(ContextPlan(100, 3), 1, 256, 102, id="small"),
    ],
)
def test_cells_as_llama_cpp_rounds_them(plan: ContextPlan, streams: int, cells: int, batch: int) -> None:
    assert (plan.streams, plan.stream_cells, plan.batch_tokens) == (streams, cells, batch)


@pytest.mark.parametrize(
    ("plan", "cells"),
    [
        pytest.param(ContextPlan(32_768, 1, is_windowed=True), 1024 + 512, id="alone"),
        pytest.param(ContextPlan(32_768, 4, is_windowed=True), 4 * 1024 + 512, id="a window for each"),
        pytest.param(ContextPlan(32_768, 4, is_windowed=True, is_unified=False), 1024 + 512, id="split"),
        pytest.param(ContextPlan(1024, 4, is_windowed=True), 1024, id="no more than the context"),
        pytest.param(ContextPlan(300, 1, is_windowed=True), 512, id="rounded up"),
        pytest.param(ContextPlan(32_768, 4), 32_768, id="kept in full"),
    ],
)
def test_cells_of_a_window(plan: ContextPlan, cells: int) -> None:
    assert plan.window_cells(1024) == cells


# ---- the cache


def test_the_cache_of_tinyllama() -> None:
    assert kv_bytes(shape(llama(TINYLLAMA)), ContextPlan(2048, 1), flash_attention=True) == 46_137_344


@pytest.mark.parametrize(
    ("kv_type", "bits"),
    [
        ("f32", 32),
        ("f16", 16),
        ("bf16", 16),
        ("q8_0", 8.5),
        ("q5_1", 6),
        ("q5_0", 5.5),
        ("q4_1", 5),
        ("q4_0", 4.5),
        ("iq4_nl", 4.5),
    ],
)
def test_number_formats_of_the_cache(kv_type: str, bits: float) -> None:
    plan = ContextPlan(2048, 1, kv_type=kv_type)

    assert kv_bytes(shape(llama(TINYLLAMA)), plan, flash_attention=True) == 46_137_344 * bits / 16


def test_a_head_that_is_no_multiple_of_a_block_is_rounded_up() -> None:
    model = llama(Size(heads=8, heads_kv=1, head_dim=40, layers=1))

    assert kv_bytes(shape(model), ContextPlan(256, 1, kv_type="q8_0"), flash_attention=True) == 2 * 256 * 2 * 34


def test_a_window_saves_memory_where_it_is_used() -> None:
    found = shape(gemma3(Size(layers=6, n_ctx=131_072), window=1024))
    full = kv_bytes(found, ContextPlan(131_072, 1), flash_attention=True)
    windowed = kv_bytes(found, ContextPlan(131_072, 1, is_windowed=True), flash_attention=True)

    assert windowed == full // 6 + 5 * (full // 6) * 1536 // 131_072


def test_one_compressed_row_for_all_heads() -> None:
    found = shape(deepseek2(Size(head_dim=64), experts=8, used=2))

    assert kv_bytes(found, ContextPlan(1024, 1), flash_attention=True) == 4 * 1024 * 576 * 2


def test_an_index_of_the_past_is_kept_too() -> None:
    found = replace(shape(deepseek2(Size(head_dim=64), experts=8, used=2)), indexer_dim=128)

    assert kv_bytes(found, ContextPlan(1024, 1), flash_attention=True) == 4 * 1024 * (576 + 128) * 2


def test_values_are_as_wide_as_the_widest_without_flash_attention() -> None:
    found = shape_of([header_of(llama(Size(layers=2)), {"attention.head_count_kv": (4, 1)})])
    row = 64 * 2

    assert kv_bytes(found, ContextPlan(256, 1), flash_attention=True) == 256 * row * (4 + 4 + 1 + 1)
    assert kv_bytes(found, ContextPlan(256, 1), flash_attention=False) == 256 * row * (4 + 4 + 1 + 4)


def test_a_state_grows_with_slots_and_not_with_the_context() -> None:
    found = shape(mamba(Size()))
    one = kv_bytes(found, ContextPlan(1024, 1), flash_attention=True)

    assert one == 4 * (3 * 1024 + 16 * 1024) * 4
    assert kv_bytes(found, ContextPlan(65_536, 8), flash_attention=True) == 8 * one


# ---- scratch


def test_flash_attention_spares_the_scores() -> None:
    found = shape(llama(LLAMA_8B))
    fast, slow = (step_bytes(found, ContextPlan(8192, 4), flash_attention=flag) for flag in (True, False))

    assert slow - fast > 512 * 8192 * 32 * 4 - 128 * MIB
    assert mask_bytes(found, ContextPlan(8192, 4), flash_attention=True) == 512 * 8192 * 2


def test_two_masks_where_some_see_a_window() -> None:
    plan = ContextPlan(8192, 1, is_windowed=True)
    some = shape(gemma3(Size(layers=6), window=1024))
    all_of_them = replace(some, layers=tuple(replace(layer, is_windowed=True) for layer in some.layers))

    assert mask_bytes(some, plan, flash_attention=True) == 512 * (8192 + 1536) * 2
    assert mask_bytes(all_of_them, plan, flash_attention=True) == 512 * 1536 * 2
    assert step_bytes(all_of_them, plan, flash_attention=False) > step_bytes(all_of_them, plan, flash_attention=True)


def test_no_mask_without_attention() -> None:
    assert mask_bytes(shape(mamba(Size())), ContextPlan(8192, 1), flash_attention=True) == 0


def test_a_large_vocabulary_with_many_slots_is_the_fullest_place() -> None:
    found, plan = shape(llama(Size(n_vocab=200_000))), ContextPlan(4096, 256)

    assert step_bytes(found, plan, flash_attention=True) - logits_bytes(found, plan) == 256 * 512 * 4


def test_experts_that_give_more_than_they_compute() -> None:
    narrow, wide = (shape(qwen3moe(Size(1024, feed_forward=width), experts=32, used=8)) for width in (128, 1024))
    plan = ContextPlan(4096, 4)

    assert step_bytes(narrow, plan, flash_attention=True) > 512 * 4 * (3 * 8 * 128 + 8 * 1024)
    assert step_bytes(wide, plan, flash_attention=True) < 512 * 4 * (3 * 8 * 1024 + 8 * 1024 + 4096)


def test_every_head_has_a_query_for_the_row_that_all_share() -> None:
    few, many = (shape(deepseek2(Size(heads=heads, head_dim=64), experts=8, used=2)) for heads in (8, 32))
    plan = ContextPlan(4096, 4)

    more = step_bytes(many, plan, flash_attention=True) - step_bytes(few, plan, flash_attention=True)
    assert more == 512 * 4 * (32 - 8) * (2 * 576 + 128)


@pytest.mark.parametrize("model", [mamba(Size()), falcon_h1(Size())])
def test_each_slot_s_state_is_copied_in_a_step(model: Model) -> None:
    found = shape(model)
    one, four = (step_bytes(found, ContextPlan(4096, slots), flash_attention=True) for slots in (1, 4))

    assert 0 <= four - one - 3 * 4 * (found.state.scan_values + 2 * found.state.conv_values) <= 4 * 512


# ---- the estimate


def test_the_processor_has_everything_in_one_memory() -> None:
    found = estimate(shape(llama(LLAMA_8B)), ContextPlan(16_384, 4), CPU)

    assert found.host == Parts()
    assert found.parts == found.device
    assert found.required_bytes == sum(
        (
            found.device.weights_bytes,
            found.device.kv_bytes,
            found.device.compute_bytes,
            found.device.overhead_bytes,
        )
    )
    assert found.device.kv_bytes == 2 * GIB


def test_a_graphics_card_leaves_the_embedding_in_main_memory() -> None:
    found = shape(llama(LLAMA_8B))
    on_card = estimate(found, ContextPlan(16_384, 16), Target("cuda"))

    assert on_card.host.weights_bytes == found.weights.looked_up_bytes
    assert on_card.parts.weights_bytes == found.weights.total_bytes
    assert (on_card.host.kv_bytes, on_card.device.kv_bytes) == (0, 2 * GIB)
    assert on_card.required_bytes == on_card.device.total_bytes
    assert on_card.host_bytes == on_card.host.total_bytes > 0
    assert on_card.device.overhead_bytes >= 256 * MIB


def test_a_mac_has_one_memory_for_both() -> None:
    found, plan = shape(llama(LLAMA_8B)), ContextPlan(16_384, 16)
    mac = estimate(found, plan, Target("metal"))

    assert mac.host_bytes == 0
    assert mac.required_bytes > found.weights.total_bytes + 2 * GIB


@pytest.mark.parametrize(
    ("kind", "target", "times"),
    [
        pytest.param("Q4_0", CPU, 2, id="laid out anew for multiplying"),
        pytest.param("Q8_0", CPU, 1, id="used as it is"),
        pytest.param("Q8_0", Target("cpu", repacked_by("arm64", ())), 2, id="laid out anew on ARM"),
        pytest.param("Q8_0", Target("cuda"), 2, id="looked up here, multiplied there"),
    ],
)
def test_an_embedding_that_is_the_output_too(kind: str, target: Target, times: int) -> None:
    found = shape(llama(Size(kind=kind, tied=True)))
    once = found.weights.total_bytes - found.weights.tied_bytes
    parts = estimate(found, ContextPlan(1024, 1), target).parts

    assert parts.weights_bytes == once + times * found.weights.tied_bytes


@pytest.mark.parametrize("backend", ["cpu", "cuda", "metal", "vulkan"])
@given(n_ctx=st.integers(1, 200_000), slots=st.integers(1, 64), more=st.integers(0, 100_000))
def test_more_context_never_takes_less(backend: Backend, n_ctx: int, slots: int, more: int) -> None:
    found = shape(gemma3(Size(layers=6), window=1024))
    small, large = (estimate(found, ContextPlan(n, slots), Target(backend)) for n in (n_ctx, n_ctx + more))

    assert small.required_bytes <= large.required_bytes
    assert small.host_bytes <= large.host_bytes


# ---- targets


@pytest.mark.parametrize(
    ("machine", "features", "formats"),
    [
        ("x86_64", {"sse2"}, set()),
        ("x86_64", {"avx2"}, {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
        ("x86_64", {"avx2", "avx512f"}, {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}),
        ("aarch64", {"asimd"}, set()),
        ("s390x", {"vx"}, set()),
    ],
)
def test_formats_that_are_laid_out_anew(machine: str, features: set[str], formats: set[str]) -> None:
    assert repacked_by(machine, features) == formats


def test_newer_processors_lay_out_more() -> None:
    assert {"Q8_0", "Q6_K"} <= repacked_by("x86_64", {"avx2", "amx_int8"})
    assert {"Q8_0", "Q6_K"} <= repacked_by("aarch64", {"asimddp"}) == repacked_by("arm64", ())


@pytest.mark.parametrize(
    ("model", "plan", "backend", "fast"),
    [
        pytest.param(llama(Size()), ContextPlan(1024, 1), "cpu", True, id="processor"),
        pytest.param(llama(Size()), ContextPlan(1024, 1, flash_attention="off"), "cpu", False, id="not wanted"),
        pytest.param(replace(llama(Size()), architecture="grok"), ContextPlan(1024, 1), "cpu", False, id="grok"),
        pytest.param(llama(Size(head_dim=64)), ContextPlan(1024, 1), "cuda", True, id="64"),
        pytest.param(llama(Size(head_dim=48)), ContextPlan(1024, 1), "cuda", False, id="48 on CUDA"),
        pytest.param(llama(Size(head_dim=48)), ContextPlan(1024, 1), "metal", True, id="48 on Metal"),
        pytest.param(llama(Size(head_dim=48)), ContextPlan(1024, 1), "vulkan", True, id="48 on Vulkan"),
        pytest.param(llama(Size(head_dim=48)), ContextPlan(1024, 1, flash_attention="on"), "cuda", True, id="forced"),
        pytest.param(llama(Size(head_dim=48)), ContextPlan(1024, 1, kv_type="q8_0"), "cuda", True, id="needed"),
        pytest.param(jamba(Size()), ContextPlan(1024, 1), "cuda", True, id="only where there is attention"),
        pytest.param(gpt2(Size(heads_kv=8)), ContextPlan(1024, 1), "cuda", True, id="gpt2"),
        pytest.param(deepseek2(Size(head_dim=64), experts=8, used=2), ContextPlan(1024, 1), "cuda", True, id="latent"),
        pytest.param(llama(Size(heads_kv=8, head_dim=512)), ContextPlan(1024, 1), "cuda", False, id="512 alone"),
        pytest.param(llama(Size(head_dim=512)), ContextPlan(1024, 1), "cuda", True, id="512 shared by two"),
    ],
)
def test_flash_attention(model: Model, plan: ContextPlan, backend: Backend, fast: bool) -> None:
    assert uses_flash_attention(shape(model), plan, backend) is fast


# ---- corrections

FIRST = Estimate(Parts(1000, 500, 200, 100), Parts(10, 0, 20, 80))


def loads(*ratios: tuple[float, float]) -> list[LoadRecord]:
    return [
        LoadRecord(Parts(7, 7, 1000, 1000), Parts(70, 70, round(1000 * compute), round(1000 * overhead)))
        for compute, overhead in ratios
    ]


@pytest.mark.parametrize(
    ("ratios", "compute", "overhead"),
    [
        pytest.param([], 1, 1, id="nothing known"),
        pytest.param([(1.5, 0.5)], 1.5, 1, id="one load raises, and does not lower"),
        pytest.param([(9, 0.1)], 2, 1, id="one odd load"),
        pytest.param([(1.2, 0.9), (1.8, 0.9)], 1.2, 1, id="two"),
        pytest.param([(0.8, 1.1)] * 3, 0.8, 1.1, id="three that agree"),
        pytest.param([(0.8, 1.1), (9, 9), (0.8, 1.1)], 0.8, 1.1, id="an odd one among three"),
        pytest.param([(0.9, 1), (1.1, 1), (1.2, 1), (0.8, 1)], 1.1, 1, id="the higher of two in the middle"),
        pytest.param([(0.01, 0.01)] * 5, 0.5, 0.5, id="not below half"),
        pytest.param([(100, 100)] * 5, 2, 2, id="not above twice"),
        pytest.param([(2, 2)] * 9 + [(1, 1)] * 7, 1, 1, id="only the last ones count"),
        pytest.param([(0, 1.5)] * 4, 1, 1.5, id="what nobody measured"),
    ],
)
def test_earlier_loads_correct_an_estimate(ratios: list[tuple[float, float]], compute: float, overhead: float) -> None:
    found = corrected(FIRST, loads(*ratios))

    assert found.device == Parts(1000, 500, round(200 * compute), round(100 * overhead))
    assert found.host == Parts(10, 0, round(20 * compute), round(80 * overhead))


def test_an_estimate_of_nothing_is_not_divided_by() -> None:
    assert corrected(FIRST, [LoadRecord(Parts(), Parts(1, 1, 1, 1))] * 3) == FIRST


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=20))
def test_a_correction_is_bounded_and_touches_no_weights(ratios: list[tuple[float, float]]) -> None:
    found = corrected(FIRST, loads(*ratios)).device

    assert (found.weights_bytes, found.kv_bytes) == (1000, 500)
    assert 100 <= found.compute_bytes <= 400
    assert 50 <= found.overhead_bytes <= 200
