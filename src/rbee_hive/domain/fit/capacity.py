"""Is there room for a worker? Every number that counts, and whether they add up.

Errs high: refusing a model that would fit costs a hint, accepting one that does not costs an out-of-memory kill.
"""

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.estimate import Estimate
from rbee_shared.contracts.capacity import Capacity
from rbee_shared.errors import InsufficientMemoryError
from rbee_shared.units import format_bytes

_GPU_MARGIN_BYTES = 1024**3
_RAM_MARGIN_SHARE = 10


def margin_bytes(*, is_main_memory: bool, total_bytes: int) -> int:
    """What stays free for everybody else: a tenth of main memory, 1 GiB of a graphics device."""
    return total_bytes // _RAM_MARGIN_SHARE if is_main_memory else _GPU_MARGIN_BYTES


def required_by_size(file_bytes: int) -> int:
    """File size times 1.2, rounded up, where the header is not at hand. 1_000 bytes: 1_200."""
    return -(-file_bytes * 6 // 5)


def judged(capacity: Capacity) -> Capacity:
    """The same with its verdict."""
    fits_host = capacity.host_free_bytes is None or capacity.host_bytes <= capacity.host_free_bytes
    return capacity.model_copy(update={"fits": capacity.required_bytes <= capacity.available_bytes and fits_host})


def with_estimate(capacity: Capacity, estimate: Estimate, plan: ContextPlan, *, loads: int) -> Capacity:
    """The same, from the header: by part, for that context."""
    parts = estimate.device
    return capacity.model_copy(
        update={
            "basis": "header",
            "n_ctx": plan.n_ctx,
            "slots": plan.slots,
            "weights_bytes": parts.weights_bytes,
            "kv_bytes": parts.kv_bytes,
            "compute_bytes": parts.compute_bytes,
            "overhead_bytes": parts.overhead_bytes,
            "required_bytes": estimate.required_bytes,
            "host_bytes": estimate.host_bytes,
            "corrected_by_loads": loads,
        }
    )


def require_room(capacity: Capacity) -> Capacity:
    """The same, if there is room.

    Raises:
        InsufficientMemoryError: there is not; all numbers stand in `details`.
    """
    if capacity.fits:
        return capacity
    text = (
        f"{capacity.model} needs {format_bytes(capacity.required_bytes)} on {capacity.device}, "
        f"{format_bytes(capacity.free_bytes)} are free"
    )
    kept = [
        f"{format_bytes(size)} {what}"
        for size, what in ((capacity.promised_bytes, "are promised"), (capacity.margin_bytes, "stay free"))
        if size
    ]
    if kept:
        text += f" ({', '.join(kept)})"
    if capacity.required_bytes <= capacity.available_bytes:
        host_free = format_bytes(capacity.host_free_bytes or 0)
        text += f"; and {format_bytes(capacity.host_bytes)} of main memory, which has {host_free} left"
    raise InsufficientMemoryError(text, details=capacity.model_dump())
