"""Who holds the lock of this home and machine: its holder signs it, from its first moment to its last.

The run file says where a hive serves, and only while it does; a hive that hangs before or after that is found by this.
Blocking, for microseconds.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rbee_shared.process_identity import is_running, this_process

_MOST_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """A process by its pid and start time, in UNIX seconds."""

    pid: int
    create_time: float

    @property
    def lives(self) -> bool:
        """Whether that very process runs."""
        return is_running(self.pid, self.create_time)


def sign(descriptor: int) -> None:
    """Write down that this process holds the lock that `descriptor` is."""
    unsign(descriptor)
    os.pwrite(descriptor, json.dumps(asdict(Holder(*this_process()))).encode(), 0)


def unsign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)


def read_holder(lock: Path) -> Holder | None:
    """Who has signed it, None for nobody. Whether it is still held only the lock itself knows."""
    try:
        with lock.open("rb") as file:
            facts = json.loads(file.read(_MOST_BYTES))
        holder = Holder(int(facts["pid"]), float(facts["create_time"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return holder if holder.pid > 1 else None
