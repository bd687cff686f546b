"""The states of a worker as its hive sees it, and every way from one to the next. What is not in the table is a bug.

Two exits are told apart: `EXITED` was ordered and ends in `stopped`; `DIED` was not and ends in `failed`.
"""

from enum import StrEnum

from rbee_shared.contracts.workers import WorkerState


class WorkerSignal(StrEnum):
    """What may happen to a worker."""

    HTTP_UP = "http_up"
    READY = "ready"
    JOB_STARTED = "job_started"
    JOB_DONE = "job_done"
    STOP = "stop"
    EXITED = "exited"
    DIED = "died"


class InvalidTransitionError(Exception):
    """A signal came in a state in which it cannot happen."""


LIVE = frozenset({WorkerState.STARTING, WorkerState.LOADING, WorkerState.IDLE, WorkerState.BUSY, WorkerState.DRAINING})
SERVING = frozenset({WorkerState.IDLE, WorkerState.BUSY})

_MOVES: dict[tuple[WorkerState, WorkerSignal], WorkerState] = {
    (WorkerState.STARTING, WorkerSignal.HTTP_UP): WorkerState.LOADING,
    (WorkerState.LOADING, WorkerSignal.READY): WorkerState.IDLE,
    (WorkerState.IDLE, WorkerSignal.JOB_STARTED): WorkerState.BUSY,
    (WorkerState.BUSY, WorkerSignal.JOB_DONE): WorkerState.IDLE,
    (WorkerState.DRAINING, WorkerSignal.EXITED): WorkerState.STOPPED,
}


def advance(state: WorkerState, signal: WorkerSignal) -> WorkerState:
    """The state after `signal`. From any live state `STOP` leads to draining and `DIED` to failed.

    Raises:
        InvalidTransitionError: that cannot happen in that state.
    """
    if state in LIVE and signal is WorkerSignal.STOP:
        return WorkerState.DRAINING
    if state in LIVE and signal is WorkerSignal.DIED:
        return WorkerState.FAILED
    try:
        return _MOVES[state, signal]
    except KeyError:
        raise InvalidTransitionError(f"{signal} in {state}") from None


def activity(state: WorkerState, slots_busy: int) -> WorkerSignal | None:
    """What a heartbeat with that many busy slots means for a worker in `state`; None if nothing changed."""
    if state is WorkerState.IDLE and slots_busy > 0:
        return WorkerSignal.JOB_STARTED
    if state is WorkerState.BUSY and slots_busy == 0:
        return WorkerSignal.JOB_DONE
    return None
