"""The metadata of a GGUF header: scalars, short texts and short arrays are kept, the rest is counted and passed over.

What is kept is bounded, alone and in sum: a vocabulary of 150,000 words costs its length and nothing else.
"""

import struct
from dataclasses import dataclass

from rbee_hive.domain.models.gguf_bytes import HeaderBytes, quoted
from rbee_shared.errors import ModelInvalidError

_TEXT, _ARRAY = 8, 9
_SCALARS = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}
_MIN_TEXT_BYTES = 8  # its length

_MAX_KEY_BYTES = 65_535
_MAX_KEPT_TEXT_BYTES = 65_536
_MAX_KEPT_VALUES = 4096
_MAX_KEPT_BYTES = 16 * 1024 * 1024
_VALUE_BYTES = 40  # of a number in a tuple
_MAX_TEXTS = 1_500_000  # the largest vocabularies have half a million words and as many merges


@dataclass(frozen=True, slots=True)
class Omitted:
    """A value that was passed over: `length` elements of `kind`, for a text its bytes."""

    kind: str
    length: int


Scalar = int | float | bool | str
Value = Scalar | tuple[int | float | bool, ...] | Omitted


def read_metadata(data: HeaderBytes, count: int) -> dict[str, Value]:
    """As many keys with their values.

    Raises:
        ModelInvalidError: a value of an unknown kind or beyond the file's end, a key that is empty or comes twice.
    """
    return _Metadata(data).read(count)


class _Metadata:
    """Reads values, and keeps the books of how much it has kept and walked over."""

    def __init__(self, data: HeaderBytes) -> None:
        self._data = data
        self._kept_bytes = 0
        self._texts = 0

    def read(self, count: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self._data.text(_MAX_KEY_BYTES, "a key")
            if not key:
                raise ModelInvalidError("a key of the metadata is empty")
            if key in values:
                raise ModelInvalidError(f"key {quoted(key)} is there twice")
            self._keep(len(key))
            values[key] = self._value(key)
        return values

    def _value(self, key: str) -> Value:
        kind = self._data.u32(f"the kind of {quoted(key)}")
        if kind == _TEXT:
            return self._text(key)
        if kind == _ARRAY:
            return self._array(key)
        _, form = _scalar(kind, key)
        return self._data.unpack(form, quoted(key))[0]

    def _text(self, key: str) -> str | Omitted:
        length = self._data.u64(quoted(key))
        if length > _MAX_KEPT_TEXT_BYTES:
            self._data.skip(length, quoted(key))
            return Omitted("text", length)
        self._keep(length)
        return self._data.take(length, quoted(key)).decode(errors="replace")

    def _array(self, key: str) -> Value:
        kind, count = self._data.u32(f"the kind of {quoted(key)}"), self._data.u64(quoted(key))
        if kind == _TEXT:
            self._skip_texts(count, key)
            return Omitted("text", count)
        if kind == _ARRAY:
            raise ModelInvalidError(f"{quoted(key)} is an array of arrays, which llama.cpp does not read")
        name, form = _scalar(kind, key)
        if count > _MAX_KEPT_VALUES:
            self._data.skip(count * form.size, quoted(key))
            return Omitted(name, count)
        self._keep(count * _VALUE_BYTES)
        return self._data.unpack(struct.Struct(f"<{count}{form.format[1:]}"), quoted(key))

    def _skip_texts(self, count: int, key: str) -> None:
        if count * _MIN_TEXT_BYTES > self._data.left:
            raise ModelInvalidError(f"{quoted(key)} promises {count} texts, for which {self._data.left} bytes are left")
        self._texts += count
        if self._texts > _MAX_TEXTS:
            raise ModelInvalidError(f"{quoted(key)} has {count} texts; at most {_MAX_TEXTS} are read in all")
        self._data.skip_texts(count, quoted(key))

    def _keep(self, count: int) -> None:
        self._kept_bytes += count
        if self._kept_bytes > _MAX_KEPT_BYTES:
            raise ModelInvalidError(f"the metadata has more than {_MAX_KEPT_BYTES} bytes besides its vocabulary")


def _scalar(kind: int, key: str) -> tuple[str, struct.Struct]:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise ModelInvalidError(f"{quoted(key)} has a value of unknown kind {kind}") from None
