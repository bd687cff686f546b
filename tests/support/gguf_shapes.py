"""Writes models of many architectures with empty weights: real shapes and types, nothing to say.

For what depends on how a model is built and in which numbers it is kept. The tensors are those that llama.cpp asks for.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Dims = tuple[int, ...]
Tensors = Iterator[tuple[str, Dims]]


_BYTES = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_BYTE_TYPES = (2, 3, 3, *[6] * 256)
SMALLEST_VOCABULARY = len(_BYTES)
_ALIGNMENT = 32


@dataclass(frozen=True)
class Size:
    """How large. `kind`: of the matrices, as in `F16` or `Q4_0`. `head_dim` None: what the width gives each head."""

    width: int = 512
    layers: int = 4
    heads: int = 8
    heads_kv: int = 4
    head_dim: int | None = None
    feed_forward: int = 1536
    n_vocab: int = 512
    n_ctx: int = 32_768
    kind: str = "F16"
    tied: bool = False

    @property
    def dim(self) -> int:
        return self.head_dim or self.width // self.heads


Part = Callable[[str, Size], Tensors]
"""A part of a block, by the block's name."""


@dataclass(frozen=True)
class Model:
    """`keys`: of the architecture, without its name in front. `tensors`: dimensions by name, fastest first."""

    architecture: str
    size: Size
    tensors: Mapping[str, Dims]
    keys: Mapping[str, Any] = field(default_factory=dict)


def write_model(path: Path, model: Model, *, tensors_per_part: int = 0) -> list[Path]:
    """Write it, in parts if there is a number of tensors for each. Returns the files in order."""
    writer = gguf.GGUFWriter(path, model.architecture, split_max_tensors=tensors_per_part)
    for key, value in (usual_keys(model.size) | dict(model.keys)).items():
        _add_key(writer, f"{model.architecture}.{key}", value)
    _add_vocabulary(writer, model.size.n_vocab)
    for name, dims in model.tensors.items():
        kind = kind_of(name, dims, model.size.kind)
        size_bytes = math.prod(dims[1:]) * _row_bytes(dims[0], kind)
        writer.add_tensor_info(name, [*reversed(dims)], np.dtype(np.float32), size_bytes, raw_dtype=kind)
    sizes = [sum(_padded(info.nbytes) for info in part.values()) for part in writer.tensors]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for file, size_bytes in zip(writer.fout, sizes, strict=True):
        file.truncate(_padded(file.tell()) + size_bytes)  # a hole: no weight takes time or room
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf")) if tensors_per_part else [path]


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT


def usual_keys(size: Size) -> dict[str, Any]:
    return {
        "context_length": size.n_ctx,
        "embedding_length": size.width,
        "block_count": size.layers,
        "feed_forward_length": size.feed_forward,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.heads_kv,
        "attention.key_length": size.dim,
        "attention.value_length": size.dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
        "vocab_size": size.n_vocab,
    }


def _add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    else:
        writer.add_uint32(key, value)


def _add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    more = n_vocab - SMALLEST_VOCABULARY
    writer.add_name("empty")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*_BYTES, *(f"w{number}" for number in range(more))])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([*_BYTE_TYPES, *[1] * more])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def kind_of(name: str, dims: Dims, kind: str) -> Any:
    """Matrices in `kind`; what llama.cpp wants exact, and rows that are no multiple of a block, in F32."""
    exact = len(dims) == 1 or "ssm_" in name or "conv" in name or "ffn_gate_inp" in name or name.endswith("bias")
    chosen = gguf.GGMLQuantizationType["F32" if exact else kind]
    if dims[0] % gguf.GGML_QUANT_SIZES[chosen][0]:
        return gguf.GGMLQuantizationType.F32
    return chosen


def _row_bytes(values: int, kind: Any) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return int(values // block * block_bytes)


# ---- parts that architectures have in common


def ends(size: Size) -> Tensors:
    yield "token_embd.weight", (size.width, size.n_vocab)
    yield "output_norm.weight", (size.width,)
    if not size.tied:
        yield "output.weight", (size.width, size.n_vocab)


def attention(block: str, size: Size) -> Tensors:
    yield f"{block}.attn_norm.weight", (size.width,)
    yield f"{block}.attn_q.weight", (size.width, size.heads * size.dim)
    yield f"{block}.attn_k.weight", (size.width, size.heads_kv * size.dim)
    yield f"{block}.attn_v.weight", (size.width, size.heads_kv * size.dim)
    yield f"{block}.attn_output.weight", (size.heads * size.dim, size.width)


def feed_forward(block: str, size: Size) -> Tensors:
    yield f"{block}.ffn_norm.weight", (size.width,)
    yield f"{block}.ffn_gate.weight", (size.width, size.feed_forward)
    yield f"{block}.ffn_up.weight", (size.width, size.feed_forward)
    yield f"{block}.ffn_down.weight", (size.feed_forward, size.width)


def blocks(size: Size) -> list[str]:
    return [f"blk.{number}" for number in range(size.layers)]


def qk_norms(block: str, size: Size) -> Tensors:
    yield f"{block}.attn_q_norm.weight", (size.dim,)
    yield f"{block}.attn_k_norm.weight", (size.dim,)


def dense(size: Size, *more: Part) -> dict[str, Dims]:
    """Attention and feed-forward in each block, and `more`."""
    tensors = dict(ends(size))
    for block in blocks(size):
        for part in (attention, feed_forward, *more):
            tensors |= dict(part(block, size))
    return tensors


# ---- architectures


def llama(size: Size) -> Model:
    return Model("llama", size, dense(size), {"rope.dimension_count": size.dim})


def qwen2(size: Size) -> Model:
    def biases(block: str, size: Size) -> Tensors:
        yield f"{block}.attn_q.bias", (size.heads * size.dim,)
        yield f"{block}.attn_k.bias", (size.heads_kv * size.dim,)
        yield f"{block}.attn_v.bias", (size.heads_kv * size.dim,)

    return Model("qwen2", size, dense(size, biases))


def qwen3(size: Size) -> Model:
    return Model("qwen3", size, dense(size, qk_norms))


def _post_norms(block: str, size: Size) -> Tensors:
    yield f"{block}.post_attention_norm.weight", (size.width,)
    yield f"{block}.post_ffw_norm.weight", (size.width,)


def gemma2(size: Size, *, window: int) -> Model:
    keys = {"attention.sliding_window": window, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return Model("gemma2", size, dense(size, _post_norms), keys)


def gemma3(size: Size, *, window: int) -> Model:
    keys = {"attention.sliding_window": window}
    return Model("gemma3", size, dense(size, _post_norms, qk_norms), keys)


def phi3(size: Size) -> Model:
    def parts(block: str) -> Tensors:
        yield f"{block}.attn_norm.weight", (size.width,)
        yield f"{block}.attn_qkv.weight", (size.width, (size.heads + 2 * size.heads_kv) * size.dim)
        yield f"{block}.attn_output.weight", (size.width, size.width)
        yield f"{block}.ffn_norm.weight", (size.width,)
        yield f"{block}.ffn_up.weight", (size.width, 2 * size.feed_forward)
        yield f"{block}.ffn_down.weight", (size.feed_forward, size.width)

    tensors = dict(ends(size)) | {name: dims for block in blocks(size) for name, dims in parts(block)}
    return Model("phi3", size, tensors, {"rope.dimension_count": size.dim, "attention.sliding_window": 2047})


def gpt2(size: Size) -> Model:
    def parts(block: str) -> Tensors:
        width = size.width
        for name, dims in (
            ("attn_norm", (width,)),
            ("attn_qkv", (width, 3 * width)),
            ("attn_output", (width, width)),
            ("ffn_norm", (width,)),
            ("ffn_up", (width, size.feed_forward)),
            ("ffn_down", (size.feed_forward, width)),
        ):
            yield f"{block}.{name}.weight", dims
            yield f"{block}.{name}.bias", dims[-1:]

    tensors = dict(ends(size)) | {name: dims for block in blocks(size) for name, dims in parts(block)}
    tensors |= {"position_embd.weight": (size.width, size.n_ctx), "output_norm.bias": (size.width,)}
    return Model("gpt2", size, tensors)
