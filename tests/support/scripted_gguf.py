"""Writes real GGUF models that say what a test wants: a llama whose next token is a function of the last one.

All attention and feed-forward weights are zero, embeddings are one-hot, and the output matrix maps each token to its
successor. llama.cpp loads and runs it like any model. The vocabulary is 256 byte tokens and a few control tokens.
"""

import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

UNK, BOS, END, USER, ASSISTANT = range(5)
CONTROL_TEXTS = ["<unk>", "<s>", "<|end|>", "<|user|>", "<|assistant|>"]
FIRST_BYTE = len(CONTROL_TEXTS)
_WIDTH = 320  # at least the vocabulary
_N_VOCAB = FIRST_BYTE + 256
_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Script:
    """`says`: bytes, each at most once; afterwards it ends, or begins again with `forever`."""

    says: bytes
    forever: bool = False
    template: str | None = None
    n_ctx: int = 2048


def byte_token(byte: int) -> int:
    return FIRST_BYTE + byte


def write_scripted(path: Path, script: Script) -> Path:
    """Write the model."""
    assert len(set(script.says)) == len(script.says), "a byte has one successor"
    metadata = _metadata(script)
    tensors = _tensors(script)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join(metadata)
    infos, data = [], bytearray()
    for name, shape, values in tensors:
        data += b"\0" * (-len(data) % _ALIGNMENT)
        infos.append(_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
        infos.append(struct.pack("<IQ", 0, len(data)))
        data += values.tobytes()
    head = header + b"".join(infos)
    path.write_bytes(head + b"\0" * (-len(head) % _ALIGNMENT) + bytes(data))
    return path


def _successors(script: Script) -> list[int]:
    tokens = [byte_token(byte) for byte in script.says]
    following = [tokens[0] if tokens else END] * _N_VOCAB
    for token, successor in zip(tokens, [*tokens[1:], tokens[0] if script.forever and tokens else END], strict=False):
        following[token] = successor
    return following


def _tensors(script: Script) -> list[tuple[str, tuple[int, ...], "array[float]"]]:
    def zeros(*shape: int) -> tuple[tuple[int, ...], "array[float]"]:
        size = 1
        for length in shape:
            size *= length
        return shape, array("f", bytes(4 * size))

    embeddings, output = zeros(_WIDTH, _N_VOCAB), zeros(_WIDTH, _N_VOCAB)
    for token, successor in enumerate(_successors(script)):
        embeddings[1][token * _WIDTH + token] = 1.0
        output[1][successor * _WIDTH + token] = 1.0
    ones = (_WIDTH,), array("f", [1.0] * _WIDTH)
    square = zeros(_WIDTH, _WIDTH)
    named = {
        "token_embd.weight": embeddings,
        "output.weight": output,
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_norm.weight": ones,
        **{f"blk.0.{part}.weight": square for part in ("attn_q", "attn_k", "attn_v", "attn_output")},
        **{f"blk.0.{part}.weight": square for part in ("ffn_gate", "ffn_up", "ffn_down")},
    }
    return [(name, shape, values) for name, (shape, values) in named.items()]


def _metadata(script: Script) -> list[bytes]:
    pieces = [*CONTROL_TEXTS, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [_UNKNOWN, *[_CONTROL] * (FIRST_BYTE - 1), *[_BYTE] * 256]
    entries = [
        _entry("general.architecture", _STRING, _string("llama")),
        _entry("general.name", _STRING, _string("scripted")),
        *(
            _entry(f"llama.{name}", _UINT32, struct.pack("<I", value))
            for name, value in {
                "context_length": script.n_ctx,
                "embedding_length": _WIDTH,
                "block_count": 1,
                "feed_forward_length": _WIDTH,
                "attention.head_count": 4,
                "attention.head_count_kv": 4,
                "rope.dimension_count": _WIDTH // 4,
                "vocab_size": _N_VOCAB,
            }.items()
        ),
        _entry("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5)),
        _entry("tokenizer.ggml.model", _STRING, _string("llama")),
        _entry("tokenizer.ggml.tokens", _ARRAY, _array(_STRING, [_string(piece) for piece in pieces])),
        _entry("tokenizer.ggml.scores", _ARRAY, _array(_FLOAT32, [struct.pack("<f", 0.0)] * _N_VOCAB)),
        _entry("tokenizer.ggml.token_type", _ARRAY, _array(_INT32, [struct.pack("<i", kind) for kind in types])),
        _entry("tokenizer.ggml.unknown_token_id", _UINT32, struct.pack("<I", UNK)),
        _entry("tokenizer.ggml.bos_token_id", _UINT32, struct.pack("<I", BOS)),
        _entry("tokenizer.ggml.eos_token_id", _UINT32, struct.pack("<I", END)),
        _entry("tokenizer.ggml.add_bos_token", _BOOL, b"\1"),
        _entry("tokenizer.ggml.add_space_prefix", _BOOL, b"\0"),
    ]
    if script.template is not None:
        entries.append(_entry("tokenizer.chat_template", _STRING, _string(script.template)))
    return entries


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _array(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
