"""Idle workers of a hive that has no queen: with a queen she decides, without one the hive's own limit holds."""

from collections.abc import Iterable

from rbee_shared.contracts.workers import WorkerRecord, WorkerState


def idle_too_long(workers: Iterable[WorkerRecord], now_unix: float, limit_s: float) -> tuple[str, ...]:
    """The ids of the workers to stop, never a pinned one; a limit of 0 is never."""
    if limit_s <= 0:
        return ()
    return tuple(
        worker.id
        for worker in workers
        if worker.state is WorkerState.IDLE and not worker.pinned and now_unix - worker.last_activity > limit_s
    )
