"""Writes GGUF headers byte by byte: right ones, and every wrong one that the library for it would not write."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

UINT8, UINT32, FLOAT32, BOOL, TEXT, ARRAY, UINT64 = 0, 4, 6, 7, 8, 9, 10
F32, F16, Q4_0 = 0, 1, 2


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def number(name: str, value: int) -> bytes:
    return key(name, UINT32, struct.pack("<I", value))


def array(name: str, kind: int, count: int, values: bytes = b"") -> bytes:
    return key(name, ARRAY, struct.pack("<IQ", kind, count) + values)


def tensor(name: str | bytes, dims: Iterable[int], kind: int = F32, offset: int = 0) -> bytes:
    sizes = tuple(dims)
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


@dataclass(frozen=True)
class Gguf:
    """A file. The counts are those of what is there, unless others are given."""

    keys: tuple[bytes, ...] = (key("general.architecture", TEXT, text("llama")),)
    tensors: tuple[bytes, ...] = (tensor("token_embd.weight", (8, 4)),)
    data_bytes: int = 128
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_keys: int | None = None

    @property
    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        head = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys)
        return head + b"".join(self.keys) + b"".join(self.tensors)

    def __bytes__(self) -> bytes:
        header = self.header
        return header + bytes(-len(header) % 32 + self.data_bytes)
