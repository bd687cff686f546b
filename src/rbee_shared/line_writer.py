"""Writes lines to a file descriptor without ever blocking or raising.

The reader may be stopped (a pipe fills up) or gone (a broken pipe): a daemon must not notice. Lines that cannot be
delivered are handed to `undelivered`, which logs them.
"""

import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable

_BACKLOG_LINES = 10_000


class LineWriter:
    """One thread, one descriptor. The thread is a daemon thread: it never keeps the process from exiting."""

    def __init__(self, descriptor: int, undelivered: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._undelivered = undelivered
        self._lines: queue.Queue[str | None] = queue.Queue(_BACKLOG_LINES)
        self._broken = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue `line`; a newline is added."""
        if self._closed:
            self._undelivered(line)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._undelivered(line)

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait until everything is written, but not longer than `timeout_s`; what is left then is undelivered."""
        self._closed = True
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(queue.Empty):
            while self._thread.is_alive():
                if (line := self._lines.get_nowait()) is not None:
                    self._undelivered(line)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._broken:
                self._undelivered(line)
                continue
            try:
                _write_all(self._descriptor, line.encode(errors="replace") + b"\n")
            except OSError:
                self._broken = True
                self._undelivered(line)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # whoever shares the terminal or pipe with us has made it non-blocking
            select.select([], [descriptor], [])
