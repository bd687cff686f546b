"""Has the kernel ended a worker for lack of memory? It counts such kills, and that is all a user may see of them.

A control group's counter counts its own processes only and is preferred; the machine's counts everybody's. Blocking,
below a millisecond: call it in a thread.
"""

import sys
import threading
import time
from collections import deque
from pathlib import Path

from rbee_hive.domain.workers.death import OomKills
from rbee_hive.domain.workers.oom_counts import Look, counted_before, unexplained
from rbee_shared.machine_limits import groups_of

_GROUP_FILES = ("memory.events", "memory.oom_control")  # version 2, version 1
_MACHINE_FILE = Path("/proc/vmstat")
_LOOKS_KEPT = 64


class OomLedger:
    """The kills that have explained a death already: one for all workers of a hive, which may share a counter."""

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()  # two deaths may be looked into at once, each in its thread

    def claim(self, counter: str, before: int) -> int:
        """Kills since `before` that explain no other death, one of which explains this one; 0 if there is none."""
        with self._lock:
            kills = unexplained(before, self._spent.get(counter, 0), _kills(Path(counter)) or 0)
            if kills:
                self._spent[counter] = kills.start + 1
            return len(kills)


class OomWatch:
    """Watches the counter of the group in which one process lives, from its making."""

    def __init__(self, pid: int, ledger: OomLedger) -> None:
        self._pid = pid
        self._ledger = ledger
        self._looks: deque[Look] = deque(maxlen=_LOOKS_KEPT)
        self.look()

    def look(self) -> None:
        """Read the counter while the process lives; somebody may move it to another group."""
        for file in _counters(self._pid):
            if (kills := _kills(file)) is not None:
                self._looks.append(Look(time.monotonic(), str(file), kills))
                return

    def verdict(self) -> OomKills | None:
        """The kills that may explain that the process is dead now; None if there was none. Ask once for a death.

        Not only where it was seen last: one that is dying is shown in the root group (version 1).
        """
        for counter, before in counted_before(self._looks, time.monotonic()).items():
            if count := self._ledger.claim(counter, before):
                return OomKills(count, counter)
        return None


def _counters(pid: int) -> list[Path]:
    """Where the kernel counts for that process, the closest first."""
    if sys.platform != "linux":
        return []
    return [directory / name for directory in groups_of(pid) for name in _GROUP_FILES] + [_MACHINE_FILE]


def _kills(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None
