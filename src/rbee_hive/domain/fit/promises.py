"""What of a device's memory is free and spoken for: loads in progress, and weights that are mapped from disk.

A mapped file counts as free memory, for the kernel can drop its pages; a worker that has lost them crawls.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rbee_shared.contracts.workers import WorkerState

_COMING_UP = frozenset({WorkerState.STARTING, WorkerState.LOADING})
_LIVE = frozenset({*_COMING_UP, WorkerState.IDLE, WorkerState.BUSY})


@dataclass(frozen=True)
class Promise:
    """One worker. `weights_bytes` are mapped from `model_path` where `device` is main memory."""

    device: str
    state: WorkerState
    model_path: str
    weights_bytes: int
    other_bytes: int
    host_bytes: int = 0


def promised_bytes(promises: Iterable[Promise], device: str, *, is_main_memory: bool, mapping: str = "") -> int:
    """Bytes of `device` that workers have a right to and that are counted as free.

    Args:
        is_main_memory: the device is the processor.
        mapping: a file whose pages are needed anyway by whoever asks; workers of one file share them.
    """
    live = [promise for promise in promises if promise.state in _LIVE]
    coming_up = [promise for promise in live if promise.state in _COMING_UP]
    if not is_main_memory:
        return sum(each.weights_bytes + each.other_bytes for each in coming_up if each.device == device)
    here = [promise for promise in live if promise.device == device]
    mapped = {promise.model_path: promise.weights_bytes for promise in here if promise.model_path != mapping}
    others = sum(each.other_bytes for each in coming_up if each.device == device)
    return sum(mapped.values()) + others + sum(each.host_bytes for each in coming_up if each.device != device)
