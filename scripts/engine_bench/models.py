"""The models that are measured: random weights of a real shape, made once and kept in the cache.

A file is complete or absent: it is written beside its place and renamed. Speed and memory depend on the shape, not on
what the weights say; they are scaled so that logits are sane, and whatever is no word of the vocabulary is never said.
"""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from setup import cache

from engine_bench import words
from llm_worker_rbee.engine.library import NativeLog, load_bindings

_RECIPE = 1  # part of the file's name: another recipe is another file
_SEED = 1
_N_CTX_TRAIN = 32_768
_F16_BYTES = 2
_LOGIT_SCALE = 4.0


@dataclass(frozen=True)
class Shape:
    """What decides how fast a model is. `q4_0`: quantised, else F16. `answer_tokens`: that a stream is asked for."""

    name: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    q4_0: bool
    answer_tokens: int

    @property
    def kv_width(self) -> int:
        return self.width // self.heads * self.kv_heads

    def kv_bytes(self, n_ctx: int) -> int:
        """Of an F16 cache of `n_ctx` tokens over all sequences; for what does not tell it itself."""
        return 2 * self.layers * n_ctx * self.kv_width * _F16_BYTES

    def compute_bytes(self, batch_tokens: int = 512) -> int:
        """Of llama.cpp's scratch buffers, about: the logits of a full batch, and three widest rows beside them."""
        return batch_tokens * 4 * (words.VOCABULARY_SIZE + 3 * max(self.feed_forward, self.width))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tinyllama", 22, 2048, 5632, heads=32, kv_heads=4, q4_0=True, answer_tokens=128),
        Shape("mid", 8, 512, 1376, heads=8, kv_heads=8, q4_0=False, answer_tokens=192),
    )
}


def model_file(shape: Shape) -> Path:
    """The file of `shape`; made when it is not there: a few seconds, a minute for a large one."""
    kind = "q4_0" if shape.q4_0 else "f16"
    path = cache() / "bench-models" / f"{shape.name}-{kind}-{_RECIPE}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(shape, path)
    return path


def _make(shape: Shape, path: Path) -> None:
    plain, part = (path.with_suffix(f".{os.getpid()}.{name}") for name in ("f16", "part"))
    try:
        _write(shape, plain)
        if shape.q4_0:
            _quantise(plain, part)
        else:
            plain.rename(part)
        part.rename(path)
    finally:
        plain.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def _quantise(plain: Path, quantised: Path) -> None:
    bindings = load_bindings()
    log = NativeLog(bindings)
    params = bindings.llama_model_quantize_default_params()
    params.ftype = bindings.LLAMA_FTYPE_MOSTLY_Q4_0
    failed = bindings.llama_model_quantize(os.fsencode(plain), os.fsencode(quantised), ctypes.byref(params))
    bindings.llama_log_set(bindings.llama_log_callback(), None)  # `log` ends here, and llama.cpp would go on calling it
    if failed:
        raise SystemExit(f"llama.cpp does not quantise {plain}: {log.why()}")


def _write(shape: Shape, path: Path) -> None:
    """One tensor at a time: memory holds the largest one only."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer, shape)
    _add_vocabulary(writer)
    tensors = list(_tensors(shape))
    for tensor in tensors:
        kind = np.dtype(np.float16 if len(tensor.shape) > 1 else np.float32)
        writer.add_tensor_info(tensor.name, tensor.shape, kind, int(np.prod(tensor.shape)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    dice = np.random.default_rng(_SEED)
    for tensor in tensors:
        writer.write_tensor_data(tensor.numbers(dice))
    writer.close()


@dataclass(frozen=True)
class _Tensor:
    """`scale` None: ones, a norm's weight. `silent_rows`: these are zero."""

    name: str
    shape: tuple[int, ...]
    scale: float | None
    silent_rows: int = 0

    def numbers(self, dice: np.random.Generator) -> Any:
        if self.scale is None:
            return np.ones(self.shape, dtype=np.float32)
        numbers = dice.standard_normal(self.shape, dtype=np.float32)
        numbers *= self.scale
        numbers[: self.silent_rows] = 0.0
        return numbers.astype(np.float16)


def _tensors(shape: Shape) -> Iterator[_Tensor]:
    width, ff, kv = shape.width, shape.feed_forward, shape.kv_width
    into_width, into_ff = width**-0.5, ff**-0.5
    residual = (2 * shape.layers) ** -0.5  # what all layers add together stays as large as what went in
    yield _Tensor("token_embd.weight", (words.VOCABULARY_SIZE, width), 1.0)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield _Tensor(f"{block}.attn_norm.weight", (width,), None)
        yield _Tensor(f"{block}.attn_q.weight", (width, width), into_width)
        yield _Tensor(f"{block}.attn_k.weight", (kv, width), into_width)
        yield _Tensor(f"{block}.attn_v.weight", (kv, width), into_width)
        yield _Tensor(f"{block}.attn_output.weight", (width, width), into_width * residual)
        yield _Tensor(f"{block}.ffn_norm.weight", (width,), None)
        yield _Tensor(f"{block}.ffn_gate.weight", (ff, width), into_width)
        yield _Tensor(f"{block}.ffn_up.weight", (ff, width), into_width)
        yield _Tensor(f"{block}.ffn_down.weight", (width, ff), into_ff * residual)
    yield _Tensor("output_norm.weight", (width,), None)
    # what is no word has logit 0, and the best of 30,000 words is always above
    yield _Tensor(
        "output.weight", (words.VOCABULARY_SIZE, width), into_width * _LOGIT_SCALE, silent_rows=words.FIRST_WORD_ID
    )


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"rbee bench {shape.name}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(words.VOCABULARY_SIZE)
    writer.add_context_length(_N_CTX_TRAIN)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words.pieces())
    writer.add_token_scores([-float(token) for token in range(words.VOCABULARY_SIZE)])
    writer.add_token_types(words.token_types())
    writer.add_unk_token_id(words.UNKNOWN_ID)
    writer.add_bos_token_id(words.BEGIN_ID)
    writer.add_eos_token_id(words.END_ID)
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
