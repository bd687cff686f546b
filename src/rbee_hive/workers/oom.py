"""Has the kernel ended a worker for lack of memory? It counts such kills, and that is all a user may see of them.

A control group's counter counts its own processes only and is preferred; the machine's counts everybody's. Blocking,
below a millisecond: call it in a thread.
"""

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from rbee_hive.domain.workers.death import OomKills
from rbee_shared.machine_limits import groups_of

_GROUP_FILES = ("memory.events", "memory.oom_control")  # version 2, version 1
_MACHINE_FILE = Path("/proc/vmstat")
_LOOKS_KEPT = 30


@dataclass(frozen=True)
class _Look:
    file: Path
    kills: int


class OomWatch:
    """Watches the counter of the group in which one process lives, from its making.

    A kill counts if it came after the oldest look that is kept: the death of a large process follows its sentence by
    seconds, and a sentence of last week explains nothing.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looks: deque[_Look] = deque(maxlen=_LOOKS_KEPT)
        self.look()

    def look(self) -> None:
        """Read the counter while the process lives; somebody may move it to another group."""
        for file in _counters(self._pid):
            if (kills := _kills(file)) is not None:
                self._looks.append(_Look(file, kills))
                return

    def verdict(self) -> OomKills | None:
        """The kills since the oldest look, now that the process is dead; None if there was none.

        Not only where it was seen last: one that is dying is shown in the root group (version 1).
        """
        before = {look.file: look.kills for look in reversed(self._looks)}
        for file, kills in before.items():
            if (count := (_kills(file) or 0) - kills) > 0:
                return OomKills(count, str(file))
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
