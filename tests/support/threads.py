"""Stops one thread of another process, as a hang in C code would, while the others go on: for root or its parent."""

import ctypes
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000
_USER_TIME, _SYSTEM_TIME = 11, 12  # after the name, in clock ticks


def busiest_thread(pid: int, *, within_s: float = 0.3) -> int:
    """The thread that used most processor time in a while."""
    before = _cpu_times(pid)
    time.sleep(within_s)
    after = _cpu_times(pid)
    return max(after, key=lambda tid: after[tid] - before.get(tid, 0))


@contextmanager
def stopped_thread(tid: int) -> Generator[None]:
    """The thread does nothing for the length of the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (_SEIZE, _INTERRUPT):
        if libc.ptrace(request, tid, None, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.waitpid(tid, _WALL)
    try:
        yield
    finally:
        libc.ptrace(_DETACH, tid, None, None)


def _cpu_times(pid: int) -> dict[int, int]:
    times = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        times[int(stat.parent.name)] = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return times
