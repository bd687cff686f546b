"""Which process is meant: a pid alone is reused, a pid with its start time is not."""

import psutil

_SAME_START_S = 1.0


def this_process() -> tuple[int, float]:
    """Pid and start time (UNIX seconds) of the caller."""
    me = psutil.Process()
    return me.pid, me.create_time()


def is_running(pid: int, create_time: float) -> bool:
    """Whether that very process still runs; one that is dead and only not yet reaped does not."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):  # the last two: no process can have that number
        return False
