"""Locks between processes: held by an open file, so that the kernel gives back what a killed one had."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rbee_shared.errors import RequestTimeoutError

_PRIVATE_FILE = 0o600
_WAIT_S = 10.0
_POLL_S = 0.02


def try_lock(path: Path) -> int | None:
    """Take the lock without waiting: a descriptor to close with `os.close`, or None when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock for the length of the block. Blocking: enter it in a thread.

    Raises:
        RequestTimeoutError: another process has it for longer than anybody should.
        OSError: the file cannot be made.
    """
    deadline_s = time.monotonic() + _WAIT_S
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline_s:
            raise RequestTimeoutError(f"{path} has been locked by another process for {_WAIT_S:.0f} s")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)
