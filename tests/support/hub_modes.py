"""What a scripted Hub does wrong, and the sending of a body with or without it."""

import fcntl
import os
import random
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIB = 1024 * 1024
_SLOW_CHUNK = 16 * 1024
_SENDFILE_CHUNK = 16 * MIB
_DRAIN_S = 2.0

Place = Literal["api", "resolve", "cdn"]
After = Literal["nothing", "close", "reset", "stall"]


@dataclass(frozen=True)
class Mode:
    """One way of going wrong, at one place, for `times` requests (None: for ever). The default is to do it right.

    `after_bytes`, `after`: how the body breaks off. `reset_per_mib`: odds of a reset in each MiB that is sent.
    `corrupt_at`: that byte of the file comes out flipped. `etag`: replaces the file's own. `plain_body`: sent instead
    of the file. `length_off_by`: what Content-Length lies. `location`: where a redirect leads.
    """

    at: Place = "cdn"
    times: int | None = None
    skip: int = 0
    status: int | None = None
    error_code: str | None = None
    retry_after: str | None = None
    headers_after_s: float = 0.0
    location: str | None = None
    after_bytes: int | None = None
    after: After = "close"
    reset_per_mib: float = 0.0
    bytes_per_s: float | None = None
    corrupt_at: int | None = None
    etag: str | None = None
    ranges: bool = True
    length_off_by: int = 0
    plain_body: bytes | None = None


RIGHT = Mode()


@dataclass
class Script:
    """The modes of a Hub, by path of the file (or the repository's name). The first one that is not used up counts."""

    _lines: dict[tuple[Place, str], list[list[int | Mode | None]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, *modes: Mode) -> None:
        with self._lock:
            for mode in modes:
                self._lines.setdefault((mode.at, path), []).append([mode, mode.skip, mode.times])

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()

    def take(self, at: Place, path: str) -> Mode:
        """The mode for one more request there; `path` "*" stands for every path."""
        with self._lock:
            for line in self._lines.get((at, path), []) + self._lines.get((at, "*"), []):
                mode, skip, times = line
                assert isinstance(mode, Mode)
                if isinstance(skip, int) and skip > 0:
                    line[1] = skip - 1
                    return RIGHT
                if times is None:
                    return mode
                if isinstance(times, int) and times > 0:
                    line[2] = times - 1
                    return mode
        return RIGHT


@dataclass
class Body:
    """Bytes `start` to `stop` of a file, sent down a socket as `mode` says. `sent` counts them as they go."""

    path: Path
    start: int
    stop: int
    mode: Mode
    dice: random.Random
    stopping: threading.Event
    sent: int = 0

    def send(self, connection: socket.socket) -> After:
        """Send; what comes back is what shall become of the connection."""
        stop, ending = self._end()
        with self.path.open("rb") as file:
            if self.mode.bytes_per_s is None and self.mode.corrupt_at is None:
                self._send_fast(connection, file.fileno(), stop)
            else:
                self._send_slowly(connection, file.fileno(), stop)
        if ending == "stall":
            self.stopping.wait()
        return ending

    def _end(self) -> tuple[int, After]:
        ends: list[tuple[int, After]] = [(self.stop, "nothing")]
        if self.mode.after_bytes is not None:
            ends.append((self.start + self.mode.after_bytes, self.mode.after))
        if self.mode.reset_per_mib:
            ends.append((self.start + int(self.dice.expovariate(self.mode.reset_per_mib) * MIB), "reset"))
        return min(ends, key=lambda end: end[0])

    def _send_fast(self, connection: socket.socket, file: int, stop: int) -> None:
        at = self.start
        while at < stop and not self.stopping.is_set():
            count = os.sendfile(connection.fileno(), file, at, min(stop - at, _SENDFILE_CHUNK))
            at += count
            self.sent += count

    def _send_slowly(self, connection: socket.socket, file: int, stop: int) -> None:
        at, rate = self.start, self.mode.bytes_per_s
        chunk_bytes = _SLOW_CHUNK if rate is None else max(1, min(_SLOW_CHUNK, int(rate / 20)))
        while at < stop and not self.stopping.is_set():
            chunk = bytearray(os.pread(file, min(chunk_bytes, stop - at), at))
            bad = self.mode.corrupt_at
            if bad is not None and at <= bad < at + len(chunk):
                chunk[bad - at] ^= 0xFF
            connection.sendall(chunk)
            at += len(chunk)
            self.sent += len(chunk)
            if rate is not None:
                self.stopping.wait(len(chunk) / rate)


def hang_up_by_reset(connection: socket.socket) -> None:
    """Have the close that follows send RST instead of FIN, behind what was sent: a reset drops what is still here."""
    deadline_s = time.monotonic() + _DRAIN_S
    while time.monotonic() < deadline_s and _unsent_bytes(connection):
        time.sleep(0.002)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _unsent_bytes(connection: socket.socket) -> int:
    count = bytearray(4)
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)


PRESETS: dict[str, Callable[[], Mode]] = {
    "resets": lambda: Mode(reset_per_mib=0.05),
    "trickle": lambda: Mode(bytes_per_s=1024),
    "stall": lambda: Mode(after_bytes=MIB, after="stall"),
    "truncate": lambda: Mode(after_bytes=MIB),
    "corrupt": lambda: Mode(corrupt_at=12_345),
    "no-ranges": lambda: Mode(ranges=False),
    "busy": lambda: Mode(at="resolve", status=429, retry_after="1", times=2),
    "broken": lambda: Mode(at="resolve", status=503, times=3),
}
"""Modes by name, for `python -m tests.support.hub --mode NAME`."""
