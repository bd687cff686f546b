"""Where does this task run? Facts in, one decision out, with its reason.

The order: a worker that has the model and a free slot; else wait for one that has the model or is loading it; else a
device with room for a new worker, the strongest first. Ties break on ids, so a decision can be replayed.
"""

from dataclasses import dataclass

from queen_rbee.domain.facts import Cluster, DeviceFacts, Wish, WorkerFacts
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.units import format_bytes

_ALIVE = frozenset({WorkerState.STARTING, WorkerState.LOADING, WorkerState.IDLE, WorkerState.BUSY})
_SERVING = frozenset({WorkerState.IDLE, WorkerState.BUSY})


@dataclass(frozen=True)
class UseWorker:
    """Send it to this worker, which has a free slot."""

    worker_id: str
    reason: str


@dataclass(frozen=True)
class SpawnWorker:
    """Start a worker on this device."""

    device: DeviceFacts
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do now; something that is under way will change that."""

    reason: str


@dataclass(frozen=True)
class Refuse:
    """It cannot run there, now or later: no device answers to what was asked for."""

    reason: str


@dataclass(frozen=True)
class NodeLost:
    """Its node is gone, although it was there when the task was prepared."""

    reason: str


Placement = UseWorker | SpawnWorker | Wait | Refuse | NodeLost


def place(wish: Wish, cluster: Cluster) -> Placement:
    """Choose where `wish` runs, on the node that it names."""
    assert wish.node is not None
    if wish.node in cluster.silent:
        return Wait(f"the hive at {wish.node} does not answer at the moment")
    devices = [device for device in cluster.devices if device.node == wish.node]
    if not devices:
        return NodeLost(f"the hive at {wish.node} is gone")
    wanted = [device for device in devices if _fits_wish(device, wish)]
    if not wanted:
        return Refuse(_no_such_device(wish, devices))
    wanted_ids = {device.id for device in wanted}
    workers = [
        worker
        for worker in cluster.workers
        if (worker.node, worker.model_ref) == (wish.node, wish.model_ref) and worker.device in wanted_ids
    ]
    free = [worker for worker in workers if worker.state in _SERVING and worker.slots_free > 0]
    if free:
        chosen = min(free, key=_least_loaded_first)
        return UseWorker(chosen.id, f"worker {chosen.id} has {wish.model_ref} loaded and a free slot")
    return _new_worker_or_wait(wish, cluster, workers, wanted)


def _new_worker_or_wait(
    wish: Wish, cluster: Cluster, workers: list[WorkerFacts], wanted: list[DeviceFacts]
) -> Placement:
    loads = [load for load in cluster.loads if (load.node, load.model_ref) == (wish.node, wish.model_ref)]
    if loads:
        return Wait(f"a worker for {wish.model_ref} is being started on {wish.node}")
    if alive := [worker for worker in workers if worker.state in _ALIVE]:
        ids = ", ".join(sorted(worker.id for worker in alive))
        if any(worker.state in _SERVING for worker in alive):
            return Wait(f"every slot of {ids} is busy")
        return Wait(f"{ids} is coming up")  # also one that crashed and is started again: sooner there than a new one
    chosen = min(wanted, key=_strongest_first)
    return SpawnWorker(chosen, _why(chosen, wanted))


def matches(device_id: str, backend: str, index: int, wanted: int | str | None) -> bool:
    """Whether a device answers to `wanted`: its index, `cuda:1`, `gpu1`, or (for the processor) `cpu`."""
    if wanted is None:
        return True
    text = str(wanted).lower()
    names = {str(index), device_id.lower(), f"{backend}:{index}"}
    if backend != "cpu":
        names.add(f"gpu{index}")
    return text in names


def _fits_wish(device: DeviceFacts, wish: Wish) -> bool:
    if wish.backend is not None and device.backend != wish.backend:
        return False
    return matches(device.id, device.backend, device.index, wish.device)


def _strongest_first(device: DeviceFacts) -> tuple[bool, int, int, str]:
    """GPUs before the processor; then most memory, then most free memory."""
    return (device.backend == "cpu", -device.total_bytes, -device.free_bytes, device.id)


def _least_loaded_first(worker: WorkerFacts) -> tuple[int, str]:
    return (-worker.slots_free, worker.id)


def _why(chosen: DeviceFacts, wanted: list[DeviceFacts]) -> str:
    if len(wanted) == 1:
        return "the only device there that fits the request"
    return f"most memory ({format_bytes(chosen.total_bytes)}) of {len(wanted)} devices"


def _no_such_device(wish: Wish, devices: list[DeviceFacts]) -> str:
    asked = [f"backend {wish.backend}"] if wish.backend else []
    asked += [f"device {wish.device}"] if wish.device is not None else []
    there = ", ".join(device.id for device in devices)
    return f"{wish.node} has no {' '.join(asked)}; its devices are: {there}"
