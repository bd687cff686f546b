"""Model files for tests, made from the one that ships."""

from importlib import resources
from pathlib import Path

_TYPE_BYTES = 4  # a metadata entry is its key, the type of its value, the value


def storyteller() -> bytes:
    """The embedded model."""
    return (resources.files("rbee_shared") / "assets" / "storyteller.gguf").read_bytes()


def endless_model(path: Path, *, n_ctx_train: int | None = None) -> Path:
    """The storyteller without an end: its last token has another name, and another token is named as the last.

    An answer then runs until `max_tokens` or the context is full, long enough to be killed in the middle.
    `n_ctx_train`: what it says it was trained for.
    """
    data = bytearray(storyteller().replace(b"<|end|>", b"<|enD|>"))
    for name in (b"eos", b"eot", b"eom"):
        key = b"tokenizer.ggml." + name + b"_token_id"
        if (at := data.find(key)) >= 0:
            value = at + len(key) + _TYPE_BYTES
            data[value : value + 4] = (0).to_bytes(4, "little")
    if n_ctx_train is not None:
        key = b"llama.context_length"
        value = data.index(key) + len(key) + _TYPE_BYTES
        data[value : value + 4] = n_ctx_train.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def with_unknown_tokenizer(data: bytes) -> bytes:
    """A model whose header is in order, and that llama.cpp refuses all the same."""
    return data.replace(b"llama\x12\x00\x00\x00\x00\x00\x00\x00token", b"lambo\x12\x00\x00\x00\x00\x00\x00\x00token")


def truncated_model(path: Path) -> Path:
    """A download that broke off."""
    data = storyteller()
    path.write_bytes(data[: len(data) // 2])
    return path
