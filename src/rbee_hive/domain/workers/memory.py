"""Did a worker's memory come back? Decided from numbers that were measured outside the dying process.

Free memory alone cannot tell: other programs start and grow while a worker ends. So a shortfall counts only as far as
the growth of programs that have nothing to do with the worker does not explain it. A process that the worker left
behind counts always.
"""

from dataclasses import dataclass

TOLERANCE_BYTES = 64 * 1024 * 1024
_TOLERANCE_SHARE = 10


@dataclass(frozen=True)
class Holder:
    """A process that belongs to a worker which is gone."""

    pid: int
    name: str
    held_bytes: int


@dataclass(frozen=True)
class MemoryFacts:
    """`worker_bytes`: what the worker held for itself alone. `grown_elsewhere_bytes`: by unrelated programs since.

    The device's memory is shown beside and decides nothing: who else took some of it meanwhile cannot be told. None
    where there is no graphics device, or it does not tell.
    """

    worker_bytes: int
    free_before_bytes: int
    free_after_bytes: int
    grown_elsewhere_bytes: int = 0
    holders: tuple[Holder, ...] = ()
    device_free_before_bytes: int | None = None
    device_free_after_bytes: int | None = None


def missing_bytes(facts: MemoryFacts) -> int:
    """How much of the worker's memory is not free and not explained; 0 if all of it came back."""
    came_back = facts.free_after_bytes - facts.free_before_bytes + facts.grown_elsewhere_bytes
    tolerance = max(TOLERANCE_BYTES, facts.worker_bytes // _TOLERANCE_SHARE)
    short = facts.worker_bytes - came_back
    held = sum(holder.held_bytes for holder in facts.holders)
    return max(held, short if short > tolerance else 0)


def released(facts: MemoryFacts) -> bool:
    """Whether the memory is back and nothing of the worker lives on."""
    return not facts.holders and missing_bytes(facts) == 0
