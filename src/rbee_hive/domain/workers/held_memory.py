"""How much memory the workers of this hive hold on each device, by their own word."""

from collections import Counter
from collections.abc import Iterable, Mapping

from rbee_hive.domain.workers.worker_state import LIVE
from rbee_shared.contracts.workers import WorkerRecord


def held_bytes(workers: Iterable[WorkerRecord]) -> Mapping[str, int]:
    """Bytes by device id; what a worker has not told yet counts as nothing."""
    held: Counter[str] = Counter()
    for worker in workers:
        if worker.state in LIVE:
            held[worker.device] += _of(worker)
    return held


def _of(worker: WorkerRecord) -> int:
    """What llama.cpp allocated on the device; else all that its process has resident."""
    if (parts := worker.memory) is not None:
        return parts.weights_bytes + parts.kv_bytes + parts.compute_bytes
    return worker.memory_bytes or 0
