"""May this task wait in line? Bounded, so that a queue never hides an overload."""

from collections.abc import Sequence

from rbee_shared.errors import QueueFullError


def admit(model_ref: str, waiting: Sequence[str], *, per_model: int, in_all: int) -> None:
    """`waiting`: the model of every task that has not begun.

    Raises:
        QueueFullError: one of the two bounds is reached.
    """
    same = sum(1 for other in waiting if other == model_ref)
    if same >= per_model:
        raise QueueFullError(f"{same} tasks are waiting for {model_ref} already")
    if len(waiting) >= in_all:
        raise QueueFullError(f"{len(waiting)} tasks are waiting already")
