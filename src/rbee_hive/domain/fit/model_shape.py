"""The shape of a model: everything about it that decides how much memory it takes.

From the headers of its file or of all its parts. A file that is no language model is refused by name, and so is one
whose keys are missing, make no sense or do not agree with its tensors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rbee_hive.domain.fit.model_layers import Layer, State, layers_of, state_of, window_tokens
from rbee_hive.domain.models.gguf import GgufHeader, TensorInfo
from rbee_hive.domain.models.gguf_bytes import quoted
from rbee_hive.domain.models.gguf_keys import MAX_LAYERS, Keys
from rbee_hive.domain.models.gguf_values import Omitted, Value
from rbee_shared.errors import ModelInvalidError

_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"
_INPUTS = frozenset({_EMBEDDING, "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})
"""Looked up, not multiplied: llama.cpp leaves them in main memory whatever the device."""
_BLOCK = re.compile(r"blk\.(\d+)\.")

_EMBEDS, _FILLS_IN, _DRAFTS = "an embedding model", "a diffusion model", "a draft head of another model"
_NO_GENERATORS = {
    "clip": "a projector of images or sounds (mmproj) that goes with a language model",
    "t5": "an encoder with a decoder",
    "t5encoder": _EMBEDS,
    "bert": _EMBEDS,
    "modern-bert": _EMBEDS,
    "nomic-bert": _EMBEDS,
    "nomic-bert-moe": _EMBEDS,
    "neo-bert": _EMBEDS,
    "jina-bert-v2": _EMBEDS,
    "jina-bert-v3": _EMBEDS,
    "eurobert": _EMBEDS,
    "gemma-embedding": _EMBEDS,
    "wavtokenizer-dec": "a decoder of sounds",
    "dream": _FILLS_IN,
    "llada": _FILLS_IN,
    "llada-moe": _FILLS_IN,
    "rnd1": _FILLS_IN,
    "eagle3": _DRAFTS,
    "dflash": _DRAFTS,
    "gemma4-assistant": _DRAFTS,
}
_NO_MODELS = {"adapter": "a LoRA adapter", "mmproj": _NO_GENERATORS["clip"], "imatrix": "an importance matrix"}


@dataclass(frozen=True, slots=True)
class Weights:
    """`looked_up_bytes`: those that stay in main memory. `tied_bytes`: of an embedding that is the output, too."""

    total_bytes: int
    looked_up_bytes: int
    tied_bytes: int
    tied_kind: str


@dataclass(frozen=True, slots=True)
class Experts:
    """All zero in a model that has none. `feed_forward`: of one of them. `has_shared`: one that sees every token."""

    count: int = 0
    used: int = 0
    feed_forward: int = 0
    has_shared: bool = False


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A language model. `is_latent`: keys and values are one compressed row (MLA). `window`: tokens, 0 for none."""

    architecture: str
    name: str
    n_params: int
    n_ctx_train: int
    n_embd: int
    n_vocab: int
    n_merges: int
    layers: tuple[Layer, ...]
    window: int
    is_latent: bool
    latent_query_dim: int
    indexer_dim: int
    has_gate: bool
    experts: Experts
    state: State
    weights: Weights

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def is_tied(self) -> bool:
        return self.weights.tied_bytes > 0


def shape_of(headers: Sequence[GgufHeader]) -> ModelShape:
    """The shape of the model in one file, or in all the parts of one, in any order.

    Raises:
        ModelInvalidError: parts are missing or of different models; no language model; keys that make no sense.
    """
    parts = _in_order(headers)
    metadata = parts[0].metadata
    architecture = _architecture(metadata)
    tensors = {tensor.name: tensor for part in parts for tensor in part.tensors}
    keys = Keys(metadata, architecture)
    count_all = keys.number("block_count", least=1, most=MAX_LAYERS)
    count = count_all - keys.number("nextn_predict_layers", 0, most=count_all - 1)
    n_embd = keys.number("embedding_length", least=1)
    embedding = _require_tensors(tensors, architecture, n_embd, count, count_all)
    layers = layers_of(keys, architecture, count, count_all)
    _require_heads(keys, architecture, layers)
    latent_dim = keys.number("attention.key_length_mla", 0)
    return ModelShape(
        architecture=architecture,
        name=_text(metadata, "general.name"),
        n_params=sum(part.n_params for part in parts),
        n_ctx_train=keys.number("context_length", least=1),
        n_embd=n_embd,
        n_vocab=_length(metadata, "tokenizer.ggml.tokens") or embedding.dims[1],
        n_merges=_length(metadata, "tokenizer.ggml.merges"),
        layers=layers,
        window=window_tokens(keys, architecture, count),
        is_latent=latent_dim > 0 and keys.number("attention.value_length_mla", 0) > 0,
        latent_query_dim=latent_dim,
        indexer_dim=keys.number("attention.indexer.key_length", 0),
        has_gate=_has_gate(tensors),
        experts=_experts(keys, count_all),
        state=state_of(keys, n_embd, layers),
        weights=_weights(tensors),
    )


def _in_order(headers: Sequence[GgufHeader]) -> list[GgufHeader]:
    """The parts by their number, the one with the metadata first."""
    counts = {_split(header, "split.count", 1) for header in headers}
    if counts != {len(headers)}:
        raise ModelInvalidError(
            f"{len(headers)} of {max(counts, default=1)} parts of the model are there",
            hint="Fetch all parts of that model into one directory.",
        )
    parts = sorted(headers, key=lambda header: _split(header, "split.no", 0))
    numbers = [_split(header, "split.no", 0) for header in parts]
    if numbers != list(range(len(parts))):
        raise ModelInvalidError(f"the parts of the model have the numbers {numbers}, one is there twice")
    found = sum(len(part.tensors) for part in parts)
    expected = _split(parts[0], "split.tensors.count", found)
    if len({tensor.name for part in parts for tensor in part.tensors}) != found or expected != found:
        raise ModelInvalidError(f"the parts have {found} tensors, not the {expected} of one model: they do not match")
    return parts


def _split(header: GgufHeader, key: str, default: int) -> int:
    value = header.metadata.get(key, default)
    if not isinstance(value, int) or value < 0:
        raise ModelInvalidError(f"{key} is {quoted(str(value))}, which is no number of parts")
    return value or default


def _architecture(metadata: Mapping[str, Value]) -> str:
    kind = metadata.get("general.type")
    if isinstance(kind, str) and kind in _NO_MODELS:
        raise _no_generator(_NO_MODELS[kind])
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelInvalidError("the metadata has no general.architecture: the file says of no model what it is")
    if architecture in _NO_GENERATORS:
        raise _no_generator(_NO_GENERATORS[architecture])
    return architecture


def _no_generator(what: str) -> ModelInvalidError:
    return ModelInvalidError(f"no text generator: it is {what}", hint="Choose the file of a language model.")


def _require_tensors(
    tensors: Mapping[str, TensorInfo], architecture: str, n_embd: int, count: int, count_all: int
) -> TensorInfo:
    """The embedding. Its width and the number of blocks have to be those that the keys tell."""
    embedding = tensors.get(_EMBEDDING)
    if embedding is None:
        raise ModelInvalidError(f"the file has no {_EMBEDDING}: it is a vocabulary, or a part of a model")
    if len(embedding.dims) != 2 or embedding.dims[0] != n_embd:  # noqa: PLR2004 - a matrix
        raise ModelInvalidError(f"{architecture}.embedding_length is {n_embd}, {_EMBEDDING} has {embedding.dims}")
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.match(name))}
    if not count <= len(blocks) <= count_all or max(blocks) >= count_all:
        raise ModelInvalidError(f"{architecture}.block_count is {count_all}, there are tensors of {len(blocks)} blocks")
    return embedding


def _require_heads(keys: Keys, architecture: str, layers: tuple[Layer, ...]) -> None:
    """A layer that attends has heads, in groups that share a key; one that does not has a state."""
    if any(layer.has_cache and layer.heads_kv and layer.heads % layer.heads_kv for layer in layers):
        raise ModelInvalidError(f"{architecture}.attention.head_count is no multiple of head_count_kv")
    if not any(layer.heads or layer.has_state for layer in layers):
        keys.number("attention.head_count", least=1)


def _has_gate(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether the feed-forward part has a second branch, on its own or in one matrix with the first."""
    return any("ffn_gate" in name and "ffn_gate_inp" not in name for name in tensors) or any(
        name.endswith("ffn_up.weight") and tensor.n_values > tensors[down].n_values
        for name, tensor in tensors.items()
        if (down := name.replace("ffn_up", "ffn_down")) in tensors
    )


def _text(metadata: Mapping[str, Value], key: str) -> str:
    value = metadata.get(key, "")
    return value if isinstance(value, str) else ""


def _length(metadata: Mapping[str, Value], key: str) -> int:
    value = metadata.get(key)
    return value.length if isinstance(value, Omitted) else 0


def _experts(keys: Keys, count_all: int) -> Experts:
    count = keys.number("expert_count", 0)
    if not count:
        return Experts()
    used = max(keys.per_layer("expert_used_count", count_all))
    if not 0 < used <= count:
        raise ModelInvalidError(f"{used} experts of {count} are used: expert_used_count makes no sense")
    usual = max(keys.per_layer("feed_forward_length", count_all, 0))
    width = max(keys.per_layer("expert_feed_forward_length", count_all, usual)) or usual
    shared = keys.number("expert_shared_count", 0) + keys.number("expert_shared_feed_forward_length", 0)
    return Experts(count, used, width, shared > 0)


def _weights(tensors: Mapping[str, TensorInfo]) -> Weights:
    embedding = tensors[_EMBEDDING]
    return Weights(
        total_bytes=sum(tensor.size_bytes for tensor in tensors.values()),
        looked_up_bytes=sum(tensor.size_bytes for name, tensor in tensors.items() if name in _INPUTS),
        tied_bytes=0 if _OUTPUT in tensors else embedding.size_bytes,
        tied_kind=embedding.kind.name,
    )
