"""What the devices of a node are called, and which one an order means.

One id for each, the same on the wire from hive to queen to keeper: `cpu`, `gpu0`, `gpu1`. Every other spelling
(`cuda:1`, `1` with a backend, `metal`) chooses among them. What a worker is told is a third thing: `DeviceName` has it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rbee_shared.errors import BackendUnavailableError

# NVML counts cards by where they sit; left alone, CUDA counts the fastest first
PCI_ORDER = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@dataclass(frozen=True)
class DeviceName:
    """One device of this node: `backend` and `index` together, or `id` alone, name it.

    `build`: the kind of worker build that serves it, where that is not its backend's. `seen_as`: the number that the
    worker's process sees it under, where that is not `index`; `environment` is what makes it see it so.
    """

    id: str
    backend: str
    index: int
    build: str | None = None
    seen_as: int | None = None
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def worker_backend(self) -> str:
        """The worker's `--backend`, and the kind of build that it runs."""
        return self.build or self.backend

    @property
    def worker_device(self) -> str:
        """The worker's `--device`: `cpu`, or `cuda:1`."""
        if self.worker_backend == "cpu":
            return "cpu"
        return f"{self.worker_backend}:{self.index if self.seen_as is None else self.seen_as}"


CPU = DeviceName("cpu", "cpu", 0)


def device_ids(devices: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """An id for each graphics device, from its backend and index: `gpu1`, or `cuda:1` where `gpu1` would name two.

    An id says the index, not the place in the list: a card that fails does not rename those behind it.
    """
    counts = Counter(index for _, index in devices)
    return tuple(f"gpu{index}" if counts[index] == 1 else f"{backend}:{index}" for backend, index in devices)


def choose_device(backend: str | None, device: int | str | None, present: Sequence[DeviceName]) -> DeviceName:
    """The device that is meant; where several are, the first.

    Raises:
        BackendUnavailableError: this node has no such device, or `gpu1` names two of it; the message says what it has.
    """
    meant = [name for name in present if backend in {None, name.backend} and _is_named(name, backend, device)]
    if len(meant) == 1 or (meant and not str(device).lower().startswith("gpu")):
        return meant[0]
    asked = " ".join(str(part) for part in (backend, device) if part is not None)
    names = ", ".join(name.id for name in present)
    if meant:
        both = " or ".join(name.id for name in meant)
        raise BackendUnavailableError(f"{asked!r} could be {both} on this node", details={"devices": names})
    raise BackendUnavailableError(f"this node has no device {asked!r}; it has {names}", details={"devices": names})


def _is_named(candidate: DeviceName, backend: str | None, device: int | str | None) -> bool:
    if device is None:
        return True
    text = str(device).lower()
    if text in {candidate.id, candidate.backend, f"{candidate.backend}:{candidate.index}"}:
        return True
    if candidate.backend != "cpu" and text == f"gpu{candidate.index}":
        return True
    return backend is not None and text == str(candidate.index)
