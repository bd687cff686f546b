"""The life of a task. A move that is not in the table is a bug and raises."""

from rbee_shared.contracts.tasks import TaskState

FINISHED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})

_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.PREPARING}) | FINISHED - {TaskState.COMPLETED},
    TaskState.PREPARING: frozenset({TaskState.RUNNING}) | FINISHED - {TaskState.COMPLETED},
    TaskState.RUNNING: FINISHED,
}


def advance(state: TaskState, to: TaskState) -> TaskState:
    """The new state; the same as the old one is no move and allowed."""
    if to is state:
        return state
    if to not in _MOVES.get(state, frozenset()):
        raise ValueError(f"a task cannot go from {state} to {to}")
    return to
