"""Is there room for a model? For now its file's size and a fifth more, against what is free.

Errs high: refusing a model that would fit costs a hint, accepting one that does not costs an out-of-memory kill.
"""

from dataclasses import dataclass

from rbee_shared.errors import InsufficientMemoryError
from rbee_shared.units import format_bytes


@dataclass(frozen=True)
class Capacity:
    """What a model needs and what its device has free."""

    required_bytes: int
    free_bytes: int


def required_bytes(file_bytes: int) -> int:
    """File size times 1.2, rounded up. 1_000 bytes: 1_200."""
    return -(-file_bytes * 6 // 5)


def require_room(file_bytes: int, free_bytes: int, *, model: str, device: str) -> Capacity:
    """Both numbers, if there is room.

    Raises:
        InsufficientMemoryError: there is not; the numbers stand in `details`.
    """
    need = required_bytes(file_bytes)
    if need > free_bytes:
        raise InsufficientMemoryError(
            f"{model} needs {format_bytes(need)} on {device}, {format_bytes(free_bytes)} are free",
            details={"required_bytes": need, "free_bytes": free_bytes, "device": device},
        )
    return Capacity(need, free_bytes)
