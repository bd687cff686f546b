"""Which warm workers have been idle for too long?"""

from collections.abc import Iterable

from queen_rbee.domain.facts import WorkerFacts
from rbee_shared.contracts.workers import WorkerState


def idle_too_long(workers: Iterable[WorkerFacts], *, now_s: float, limit_s: float) -> tuple[str, ...]:
    """Ids of the workers to stop, never a pinned one or one promised to a task; a limit of 0 keeps them for ever.

    Times are UNIX seconds.
    """
    if limit_s == 0:
        return ()
    return tuple(
        worker.id
        for worker in workers
        if worker.state is WorkerState.IDLE
        and not (worker.in_use or worker.pinned)
        and now_s - worker.idle_since_s >= limit_s
    )
