"""Reads the header of a GGUF file: what the model is and where its tensors lie, never a weight.

Safe on hostile files: each length, count and offset is held against the bytes that the file has left before anything
is kept or looped over, and whatever is wrong is a `ModelInvalidError`. What llama.cpp would refuse is refused here,
in words. Texts and arrays that are long are passed over. What the numbers mean is `rbee_hive.domain.fit.model_shape`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from rbee_hive.domain.models.ggml_types import FILE_TYPES, GGML_TYPES, GgmlType
from rbee_hive.domain.models.gguf_bytes import HeaderBytes, quoted
from rbee_hive.domain.models.gguf_values import Value, read_metadata
from rbee_shared.errors import ModelInvalidError

_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_SHORT = 1 << 16
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = "general.alignment"

_MAX_KEYS = 4096
_MAX_TENSORS = 16_384
_MAX_NAME_BYTES = 63
_MAX_DIMS = 4
_MIN_KEY_BYTES = 13  # length, one letter, type, a value of one byte
_MIN_TENSOR_BYTES = 24  # length of the name, number of dimensions, type, offset

_OTHER_FILE_HINT = "Fetch another conversion of that model, or update rbee and its worker build."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `dims` fastest first, `offset` from where the tensor data begins."""

    name: str
    dims: tuple[int, ...]
    kind: GgmlType
    offset: int

    @property
    def n_values(self) -> int:
        return math.prod(self.dims)

    @property
    def size_bytes(self) -> int:
        return self.kind.size_bytes(self.n_values)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """One file. A model that is split into parts has one header for each."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int

    @property
    def n_params(self) -> int:
        return sum(tensor.n_values for tensor in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.size_bytes for tensor in self.tensors)


def read_header(file: BinaryIO, size_bytes: int) -> GgufHeader:
    """The header of `file`, which is open at its beginning.

    Args:
        size_bytes: of the file. More than there is to read is a damaged file, too.
    Raises:
        ModelInvalidError: no GGUF file, or one that llama.cpp would not load, or one that is cut off.
    """
    data = HeaderBytes(file, size_bytes)
    version = _read_version(data)
    n_tensors, n_keys = data.u64("the number of tensors"), data.u64("the number of keys")
    _require_count(data, n_tensors, "tensors", _MAX_TENSORS, _MIN_TENSOR_BYTES)
    _require_count(data, n_keys, "keys", _MAX_KEYS, _MIN_KEY_BYTES)
    metadata = read_metadata(data, n_keys)
    alignment = _alignment(metadata)
    tensors = tuple(_read_tensor(data) for _ in range(n_tensors))
    data_offset = _padded(data.position, alignment)
    _require_laid_out(tensors, alignment)
    if tensors:
        _require_whole(tensors, data_offset, size_bytes)
    return GgufHeader(version, metadata, tensors, data_offset)


def quant_name(header: GgufHeader) -> str:
    """`Q4_K_M`, as people name files: what the header says, else the format that most of its values have."""
    file_type = header.metadata.get("general.file_type")
    if isinstance(file_type, int) and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    values = Counter[str]()
    for tensor in header.tensors:
        values[tensor.kind.name] += tensor.n_values
    return values.most_common(1)[0][0] if values else "unknown"


def _read_version(data: HeaderBytes) -> int:
    magic = data.take(len(_MAGIC), "the magic number")
    if magic != _MAGIC:
        raise ModelInvalidError(f"no GGUF file: it begins with {magic!r}, not with {_MAGIC!r}")
    version = data.u32("the version")
    if version in _VERSIONS:
        return version
    if version and version % _SHORT == 0:
        raise ModelInvalidError(
            "a GGUF file for big-endian machines", hint="Fetch the little-endian file: the one without -be in its name."
        )
    if version == 1:
        raise ModelInvalidError("a GGUF file of version 1, which llama.cpp no longer reads", hint=_OTHER_FILE_HINT)
    raise ModelInvalidError(f"a GGUF file of version {version}; versions 2 and 3 are known", hint=_OTHER_FILE_HINT)


def _require_count(data: HeaderBytes, count: int, what: str, most: int, least_bytes: int) -> None:
    if count * least_bytes > data.left:
        raise ModelInvalidError(f"the header promises {count} {what}, for which {data.left} bytes are too few")
    if count > most:
        raise ModelInvalidError(f"the header has {count} {what}; at most {most} are read")


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise ModelInvalidError(f"{_ALIGNMENT_KEY} is {quoted(str(alignment))}, which is no power of two")
    return alignment


def _read_tensor(data: HeaderBytes) -> TensorInfo:
    name = data.text(_MAX_NAME_BYTES, "the name of a tensor")
    n_dims = data.u32("a tensor's number of dimensions")
    if n_dims > _MAX_DIMS:
        raise ModelInvalidError(f"tensor {quoted(name)} has {n_dims} dimensions; {_MAX_DIMS} is the most")
    *dims, number, offset = data.tensor_info(n_dims)
    kind = GGML_TYPES.get(number)
    if kind is None:
        raise ModelInvalidError(
            f"tensor {quoted(name)} has number format {number}: made for a newer llama.cpp, or a very old one",
            hint=_OTHER_FILE_HINT,
        )
    row = dims[0] if dims else 1
    if not all(dims):
        raise ModelInvalidError(f"tensor {quoted(name)} has a dimension of 0")
    if row % kind.block_size:
        raise ModelInvalidError(f"tensor {quoted(name)} has rows of {row} values, no multiple of {kind.block_size}")
    return TensorInfo(name, tuple(dims), kind, offset)


def _require_laid_out(tensors: tuple[TensorInfo, ...], alignment: int) -> None:
    """Each tensor where the one before it ends: llama.cpp takes no other order, and none overlap then."""
    expected, names = 0, set()
    for tensor in tensors:
        if tensor.name in names:
            raise ModelInvalidError(f"tensor {quoted(tensor.name)} is there twice")
        if tensor.offset != expected:
            raise ModelInvalidError(
                f"tensor {quoted(tensor.name)} lies at {tensor.offset}, not at {expected} where the one before it ends"
            )
        names.add(tensor.name)
        expected = _padded(expected + tensor.size_bytes, alignment)


def _require_whole(tensors: tuple[TensorInfo, ...], data_offset: int, size_bytes: int) -> None:
    missing_bytes = data_offset + tensors[-1].offset + tensors[-1].size_bytes - size_bytes
    if missing_bytes > 0:
        raise ModelInvalidError(
            f"the file is cut off: {missing_bytes} bytes are missing of {size_bytes + missing_bytes}",
            details={"missing_bytes": missing_bytes, "size_bytes": size_bytes},
        )


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
