"""Writes llama models with random weights: real shapes and types, nonsense for answers.

For what depends on a model's size and number format, not on what it says.
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

_WORDS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_TYPES = (2, 3, 3, *[6] * 256)


@dataclass(frozen=True)
class Shape:
    """`kind`: of the matrices, as in `F16` or `Q4_0`."""

    width: int = 256
    layers: int = 2
    heads: int = 4
    heads_kv: int = 2
    feed_forward: int = 512
    n_ctx: int = 2048
    kind: str = "F16"


def write_random(path: Path, shape: Shape) -> Path:
    """Write the model."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape)
    random = np.random.default_rng(7)
    kind = gguf.GGMLQuantizationType[shape.kind]
    for name, rows, columns in _matrices(shape):
        values = random.standard_normal((rows, columns), dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    for name in _norms(shape):
        writer.add_tensor(name, np.ones(shape.width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("random")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_WORDS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(_WORDS))
    writer.add_token_scores([0.0] * len(_WORDS))
    writer.add_token_types(list(_TYPES))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _matrices(shape: Shape) -> list[tuple[str, int, int]]:
    width, kv, forward = shape.width, shape.width * shape.heads_kv // shape.heads, shape.feed_forward
    rows = [("token_embd.weight", len(_WORDS), width), ("output.weight", len(_WORDS), width)]
    for layer in range(shape.layers):
        rows += [
            (f"blk.{layer}.attn_q.weight", width, width),
            (f"blk.{layer}.attn_k.weight", kv, width),
            (f"blk.{layer}.attn_v.weight", kv, width),
            (f"blk.{layer}.attn_output.weight", width, width),
            (f"blk.{layer}.ffn_gate.weight", forward, width),
            (f"blk.{layer}.ffn_up.weight", forward, width),
            (f"blk.{layer}.ffn_down.weight", width, forward),
        ]
    return rows


def _norms(shape: Shape) -> list[str]:
    layers = range(shape.layers)
    return ["output_norm.weight", *(f"blk.{n}.{part}_norm.weight" for n in layers for part in ("attn", "ffn"))]
