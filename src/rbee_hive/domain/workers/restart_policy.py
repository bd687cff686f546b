"""Is a worker that died started again, and after how long?

Only what may go better the next time is tried again: a crash, a stalled engine. What the machine or the order is to
blame for (the file, the arguments, the memory, the ports, the disk) is told at once. Somebody who ends a worker by
hand, with TERM rather than KILL, does not get it back.
"""

import signal
from dataclasses import dataclass

from rbee_shared.errors import InferenceStalledError, InternalError, RbeeError, WorkerCrashedError

_DELAYS = (1, 4, 16)  # of the first one
MAX_RESTARTS = len(_DELAYS)
_SPREAD = 0.25
_MAY_PASS = (WorkerCrashedError, InferenceStalledError, InternalError)
_TOLD_TO_GO = frozenset({0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})


@dataclass(frozen=True)
class Death:
    """The end of a worker's process. `served_s`: how long it had been ready; None if it never was."""

    error: RbeeError
    returncode: int
    served_s: float | None
    ordered: bool = False


def restarts_in_a_row(before: int, served_s: float | None, reset_s: float) -> int:
    """How many restarts count against the next one: none after a process that served for `reset_s`."""
    return 0 if served_s is not None and served_s >= reset_s else before


def restart_delay_s(death: Death, restarts: int, *, first_s: float, chance: float) -> float | None:
    """Seconds to wait before the next process; None: there is none.

    Args:
        death: of the process before.
        restarts: in a row so far, see `restarts_in_a_row`.
        first_s: the first delay; the second is 4 times, the third 16 times as long.
        chance: a random number from 0 to 1; the delay differs by a quarter at most, so that workers that died of one
            cause do not come back in one moment.
    """
    if death.ordered or death.returncode in _TOLD_TO_GO or restarts >= MAX_RESTARTS:
        return None
    if not isinstance(death.error, _MAY_PASS):
        return None
    if death.served_s is None and isinstance(death.error, InternalError):
        return None  # an engine that fails before it ever served fails in the same way again
    return first_s * _DELAYS[restarts] * (1 + _SPREAD * (2 * chance - 1))
