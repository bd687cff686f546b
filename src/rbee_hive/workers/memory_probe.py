"""Measures a worker's memory from outside, and finds what it left behind. Blocking: call it in a thread.

A worker and everything it starts carries `RBEE_WORKER_ID` in its environment, and lives in the worker's session unless
it leaves it: either mark is enough to recognise a process that outlived its worker.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from rbee_hive.domain.workers.memory import Holder, MemoryFacts
from rbee_shared.machine_limits import memory

WORKER_ID_VARIABLE = "RBEE_WORKER_ID"
_KIB = 1024
_Identity = tuple[int, float]


@dataclass(frozen=True)
class Before:
    """The state of things while the worker still lives."""

    worker_id: str
    pid: int
    worker_bytes: int
    free_bytes: int
    others: dict[_Identity, int]
    device_free_bytes: int | None = None


def measure_before(worker_id: str, pid: int) -> Before:
    """Look before the worker is told to go."""
    return Before(worker_id, pid, _own_bytes(pid), memory().free_bytes, _resident(except_session=pid))


def measure_after(before: Before) -> MemoryFacts:
    """Look again, now that the worker is dead."""
    holders = left_behind(before.worker_id, before.pid)
    held_by = {holder.pid for holder in holders}
    grown = sum(
        max(0, size - before.others.get(identity, 0))
        for identity, size in _resident(except_session=before.pid).items()
        if identity[0] not in held_by
    )
    return MemoryFacts(before.worker_bytes, before.free_bytes, memory().free_bytes, grown, holders)


def _own_bytes(pid: int) -> int:
    """What comes free when it dies: the pages that it shares with nobody and no file backs. 0 if it is gone."""
    try:
        if sys.platform == "linux":
            # a model that is mapped from its file is cache: free before and after, so it does not count
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * _KIB
            return 0
        return int(psutil.Process(pid).memory_full_info().uss)
    except (OSError, psutil.Error):
        return 0


def _resident(*, except_session: int) -> dict[_Identity, int]:
    sizes = {}
    for process in psutil.process_iter():
        try:
            if _session(process.pid) != except_session:
                sizes[process.pid, process.create_time()] = _own_bytes(process.pid)
        except (OSError, psutil.Error):
            continue
    return sizes


def left_behind(worker_id: str, session: int) -> tuple[Holder, ...]:
    """The processes of a worker that live on. `session`: the pid of its own process, which is dead."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = _session(process.pid) == session or process.environ().get(WORKER_ID_VARIABLE) == worker_id
            if marked and process.pid != session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(Holder(process.pid, process.name(), _own_bytes(process.pid)))
        except (OSError, psutil.Error):
            continue  # gone meanwhile, or another user's: not ours
    return tuple(found)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
