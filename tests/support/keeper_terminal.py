"""A keeper that has a pseudo-terminal to itself."""

import fcntl
import os
import pty
import re
import termios
import time

from tests.support.keeper_lab import KeeperLab

_DECORATION = re.compile(r"\x1b\[[0-9;]*[mK]|\r")


class Terminal:
    """A keeper that has a pseudo-terminal to itself, and everything that appeared on it."""

    def __init__(self, lab: KeeperLab, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.process = lab.start_keeper(
            *args,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.raw = ""

    def read(self) -> str:
        """What stands there, decoration and carriage returns left out."""
        try:
            while chunk := os.read(self.master, 65536):
                self.raw += chunk.decode(errors="replace")
        except (BlockingIOError, OSError):  # OSError: everybody has closed the other side
            pass
        return _DECORATION.sub("", self.raw)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        deadline_s = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline_s:
            self.read()
            time.sleep(0.02)
        self.read()
        return self.process.wait(1)
