"""The log files of a home, for people: which there are, how each ends, and what is written to it from then on.

Secrets are redacted, lines bounded. Blocking, all but `followed`: call it in a thread.
"""

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from io import FileIO
from pathlib import Path

import anyio
import anyio.to_thread

from rbee_shared import sse
from rbee_shared.child_io import LineSplitter
from rbee_shared.errors import InternalError, NotFoundError
from rbee_shared.redaction import printable, redact

_MOST_BYTES = 4 * 1024 * 1024
_AT_ONCE_BYTES = 256 * 1024
_LOOK_EVERY_S = 0.25


def names(directory: Path) -> list[str]:
    """Of all log files."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))


class LogReader:
    """Reads one log file from near its end onward. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)
        self._lines = LineSplitter()

    @classmethod
    def open(cls, directory: Path, name: str) -> "LogReader":
        """Of the file of that name. Close it.

        Raises:
            NotFoundError: there is no such file.
        """
        missing = NotFoundError(f"there is no log file {name!r}", hint="GET /v1/logs without a name lists them.")
        if name not in names(directory):  # this also keeps every path that leads elsewhere out
            raise missing
        try:
            return cls(directory / name)
        except FileNotFoundError:
            raise missing from None

    def close(self) -> None:
        self._file.close()

    def last(self, count: int) -> list[str]:
        """The last `count` finished lines that it has now."""
        self._file.seek(max(0, os.fstat(self._file.fileno()).st_size - _MOST_BYTES))
        return [_shown(line) for line in deque(self._lines.feed(self._file.read(_MOST_BYTES)), maxlen=count)]

    def unfinished(self) -> list[str]:
        """What stands behind the last newline, as a line; nothing may be read after it."""
        return [_shown(line) for line in self._lines.feed(b"\n") if line]

    def more(self) -> list[str]:
        """The lines that were finished since the last call.

        A file that was emptied is read from its beginning; one that was moved aside to its end, then its successor.
        """
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:
            self._file.seek(0)
        chunk = self._file.read(_AT_ONCE_BYTES)
        if not chunk and (successor := self._successor()) is not None:
            self._file.close()
            self._file = successor
            chunk = successor.read(_AT_ONCE_BYTES)
        return [_shown(line) for line in self._lines.feed(chunk)]

    def _successor(self) -> FileIO | None:
        """The file that has taken this one's name, opened; none before somebody writes to it."""
        try:
            there = _opened(self._path)
        except OSError:
            return None
        if os.path.sameopenfile(there.fileno(), self._file.fileno()):
            there.close()
            return None
        return there


def tail(directory: Path, name: str, lines: int) -> list[str]:
    """The last `lines` lines of the file `name`.

    Raises:
        NotFoundError: there is no such file.
    """
    reader = LogReader.open(directory, name)
    try:
        return [*reader.last(lines), *reader.unfinished()][-lines:]
    finally:
        reader.close()


async def followed(
    reader: LogReader, last: list[str], *, is_over: Callable[[], bool], ping_s: float
) -> AsyncGenerator[bytes, None]:
    """An event stream of lines: `last`, then those that come, until `is_over`."""
    lines, told_at_s = last, anyio.current_time()
    while True:
        ends = is_over()  # asked first: what was written by then is still read
        if lines:
            told_at_s = anyio.current_time()
            yield b"".join(sse.encode("log", {"line": line}) for line in lines)
        elif ends:
            yield sse.encode("end", {}) + sse.DONE
            return
        elif anyio.current_time() - told_at_s >= ping_s:
            told_at_s = anyio.current_time()
            yield sse.PING
        if not lines:
            await anyio.sleep(_LOOK_EVERY_S)
        try:
            lines = await anyio.to_thread.run_sync(reader.more)
        except OSError as error:
            yield sse.encode("error", InternalError(f"the log file cannot be read: {error.strerror}").body()) + sse.DONE
            return


def _opened(path: Path) -> FileIO:
    """Without a buffer, which would show what no longer stands there; never through a link."""
    return FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), closefd=True)


def _shown(line: bytes) -> str:
    return redact(printable(line.removesuffix(b"\r").decode(errors="replace")))
