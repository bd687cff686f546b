"""Which device an order means: an index with a backend, or an id (`cpu`, `gpu1`, `cuda:1`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from rbee_shared.errors import BackendUnavailableError


@dataclass(frozen=True)
class DeviceName:
    """One device of this node: `backend` and `index` together, or `id` alone, name it."""

    id: str
    backend: str
    index: int


CPU = DeviceName("cpu", "cpu", 0)


def choose_device(backend: str | None, device: int | str | None, present: Sequence[DeviceName]) -> DeviceName:
    """The device that is meant; nothing said means the first one.

    Raises:
        BackendUnavailableError: this node has no such device; the message names those it has.
    """
    for candidate in present:
        if backend in {None, candidate.backend} and _is_named(candidate, backend, device):
            return candidate
    asked = " ".join(str(part) for part in (backend, device) if part is not None)
    names = ", ".join(candidate.id for candidate in present)
    raise BackendUnavailableError(f"this node has no device {asked!r}; it has {names}", details={"devices": names})


def _is_named(candidate: DeviceName, backend: str | None, device: int | str | None) -> bool:
    if device is None:
        return True
    text = str(device).lower()
    if text in {candidate.id, f"{candidate.backend}:{candidate.index}"}:
        return True
    return backend is not None and text == str(candidate.index)
