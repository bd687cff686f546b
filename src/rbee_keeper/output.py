"""Standard output and standard error as the keeper writes them: UTF-8 bytes, at once, whatever the locale says.

A reader that has gone never raises here: it is told once, to `on_failure`. Writing to a pipe whose reader is slow waits
in the event loop (`room`), so that Ctrl+C still works.
"""

import errno
import os
import select
import stat
from collections.abc import Callable

_PIECE_BYTES = 4096  # PIPE_BUF: what a pipe that is writable at all takes without blocking


class Output:
    """One descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.on_failure: Callable[[OSError], None] = lambda _: None
        self.failed = False
        try:
            facts = os.fstat(descriptor)
            self.is_terminal = os.isatty(descriptor)
            self.identity: tuple[int, int, int] | None = (facts.st_dev, facts.st_ino, facts.st_rdev)
            self._can_wait = self.is_terminal or stat.S_ISFIFO(facts.st_mode) or stat.S_ISSOCK(facts.st_mode)
        except OSError:  # closed by who started us: `>&-`
            self.is_terminal, self.identity, self._can_wait = False, None, False

    def write(self, text: str) -> None:
        """Write all of it now."""
        data = text.encode(errors="replace")
        while data and not self.failed:
            try:
                data = data[self._write(data) :]
            except BlockingIOError:  # somebody made the descriptor that we share non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._fail(error)

    async def write_patiently(self, text: str) -> None:
        """Write all of it, waiting for a slow reader without stopping the event loop."""
        if not self._can_wait:
            self.write(text)
            return
        from anyio import wait_writable  # noqa: PLC0415 - commands without a stream start without it

        data = text.encode(errors="replace")
        while data and not self.failed:
            await wait_writable(self._descriptor)
            try:
                data = data[self._write(data[:_PIECE_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self._fail(error)

    def _write(self, data: bytes) -> int:
        if self.identity is None:  # by now the number may belong to something else: never write there
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.write(self._descriptor, data)

    def _fail(self, error: OSError) -> None:
        self.failed = True
        self.on_failure(error)

    def width(self) -> int:
        """Columns of the terminal; 80 where it does not say."""
        try:
            return os.get_terminal_size(self._descriptor).columns or 80
        except OSError:
            return 80

    def height(self) -> int:
        """Lines of the terminal; 24 where it does not say."""
        try:
            return os.get_terminal_size(self._descriptor).lines or 24
        except OSError:
            return 24

    def is_same_as(self, other: "Output") -> bool:
        """Whether both end in the same terminal, pipe or file."""
        return self.identity is not None and self.identity == other.identity


def nobody_reads(error: OSError) -> bool:
    """Whether a write failed because the reader has gone, as with `| head`."""
    return error.errno in {errno.EPIPE, errno.ECONNRESET, errno.EIO}
