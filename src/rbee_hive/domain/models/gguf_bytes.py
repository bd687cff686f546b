"""The bytes of a GGUF header, read in large pieces and never beyond what the file has.

Nothing is allocated for a length before it is known that the file has that many bytes left, and what is passed over is
not read. At most one piece is in memory.
"""

import struct
from typing import BinaryIO

from rbee_shared.errors import ModelInvalidError
from rbee_shared.redaction import printable_line

_PIECE_BYTES = 4 * 1024 * 1024
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TENSOR_INFOS = tuple(struct.Struct(f"<{dims}QIQ") for dims in range(5))
_QUOTED_CHARS = 64


def quoted(text: str) -> str:
    """A name from the file as it may stand in a message: one line, in quotes, not endless."""
    line = printable_line(text)
    return f"'{line[:_QUOTED_CHARS]}…'" if len(line) > _QUOTED_CHARS else f"'{line}'"


class HeaderBytes:
    """A cursor. Everything it gives is little-endian; running off the end is a `ModelInvalidError`."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._piece = b""
        self._begin = 0  # of the piece, in the file
        self._at = 0  # in the piece

    @property
    def position(self) -> int:
        return self._begin + self._at

    @property
    def left(self) -> int:
        """Bytes of the file that follow."""
        return self._size_bytes - self.position

    def u32(self, what: str) -> int:
        return int(self.unpack(_U32, what)[0])

    def u64(self, what: str) -> int:
        return int(self.unpack(_U64, what)[0])

    def tensor_info(self, n_dims: int) -> tuple[int, ...]:
        """A tensor's dimensions, its type and its offset."""
        return self.unpack(_TENSOR_INFOS[n_dims], "a tensor's shape")

    def unpack(self, form: struct.Struct, what: str) -> tuple[int, ...]:
        self._require(form.size, what)
        values = form.unpack_from(self._piece, self._at)
        self._at += form.size
        return values

    def take(self, count: int, what: str) -> bytes:
        self._require(count, what)
        self._at += count
        return self._piece[self._at - count : self._at]

    def text(self, most_bytes: int, what: str) -> str:
        """A text of at most `most_bytes`."""
        length = self.u64(what)
        if length > most_bytes:
            raise ModelInvalidError(f"{what} has {length} bytes; at most {most_bytes} are read")
        return self.take(length, what).decode(errors="replace")

    def skip(self, count: int, what: str) -> None:
        """Pass over bytes without reading them."""
        self._require_left(count, what)
        self._at += count
        if self._at > len(self._piece):
            self._begin, self._at, self._piece = self.position, 0, b""
            self._file.seek(self._begin)

    def skip_texts(self, count: int, what: str) -> None:
        """Pass over texts, each behind its length. A header's time goes into this loop: there are hundred thousands."""
        unpack, left = _U64.unpack_from, count
        while left:
            self._require(_U64.size, what)
            piece, at = self._piece, self._at
            try:
                for left in range(left - 1, -1, -1):  # noqa: B007, B020 - through all pieces
                    at += unpack(piece, at)[0] + 8
            except (struct.error, OverflowError):  # the piece ends before that length
                left += 1
            self.skip(at - self._at, what)

    def _require(self, count: int, what: str) -> None:
        """Have `count` bytes in the piece from here on."""
        if self._at + count <= len(self._piece):
            return
        self._require_left(count, what)
        self._begin, rest = self.position, self._piece[self._at :]
        wanted = min(max(_PIECE_BYTES, count), self.left)
        self._piece, self._at = rest + self._file.read(wanted - len(rest)), 0
        if len(self._piece) < count:
            raise ModelInvalidError(f"the file is shorter than it was: {what} cannot be read")

    def _require_left(self, count: int, what: str) -> None:
        if count > self.left:
            raise ModelInvalidError(f"the file is cut off: {what} needs {count} bytes, {self.left} are left")
