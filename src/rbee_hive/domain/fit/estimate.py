"""Will this model fit? The memory that a worker needs, by part, estimated from the model's shape before it starts.

Pure: the numbers come in, numbers go out. Errs high: refusing a model that would fit costs a hint, accepting one that
does not costs an out-of-memory kill. Earlier loads correct what cannot be computed exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_high

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.kv_cache import kv_bytes
from rbee_hive.domain.fit.model_shape import ModelShape
from rbee_hive.domain.fit.scratch import embedded_bytes, logits_bytes, mask_bytes, step_bytes, work_bytes
from rbee_hive.domain.fit.targets import Target, uses_flash_attention

_MIB = 1024 * 1024

_PROCESS_BYTES = 80 * _MIB
"""Python with the worker's libraries, llama.cpp and a few answers. Measured on Linux: 74 MB."""
_WORD_BYTES, _MERGE_BYTES = 640, 160
"""What llama.cpp, sampler and grammars keep of a word, and of a rule that joins two. Measured: 540 to 580, and 115."""
_DRIVER_BYTES = {"cuda": (512 * _MIB, 256 * _MIB), "metal": (64 * _MIB, 0), "vulkan": (192 * _MIB, 128 * _MIB)}
"""On the device and in main memory: contexts, compiled kernels, work areas. Generous; each load corrects it."""

_RECENT = 7
_ENOUGH_TO_LOWER = 3
_LEAST_RATIO, _MOST_RATIO = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Memory by what it is for. `overhead_bytes`: of the process and of its driver, whatever the model."""

    weights_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.overhead_bytes

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(
            self.weights_bytes + other.weights_bytes,
            self.kv_bytes + other.kv_bytes,
            self.compute_bytes + other.compute_bytes,
            self.overhead_bytes + other.overhead_bytes,
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a worker takes of its device, and of main memory besides: nothing, where that is the device's memory."""

    device: Parts
    host: Parts = Parts()

    @property
    def required_bytes(self) -> int:
        """Of the device."""
        return self.device.total_bytes

    @property
    def host_bytes(self) -> int:
        return self.host.total_bytes

    @property
    def parts(self) -> Parts:
        """Both together, as a worker tells what it took."""
        return self.device + self.host


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """An earlier load: what was estimated, before any correction, and what it took, in the sense of `Estimate.parts`.

    A part of `actual` that nobody could measure is 0.
    """

    estimated: Parts
    actual: Parts


def estimate(shape: ModelShape, plan: ContextPlan, target: Target) -> Estimate:
    """The memory of a worker with this model and context on `target`."""
    flash_attention = uses_flash_attention(shape, plan, target.backend)
    kv = kv_bytes(shape, plan, flash_attention=flash_attention)
    step, logits = step_bytes(shape, plan, flash_attention=flash_attention), logits_bytes(shape, plan)
    process = _PROCESS_BYTES + shape.n_vocab * _WORD_BYTES + shape.n_merges * _MERGE_BYTES
    weights = shape.weights
    if target.backend == "cpu":
        twice = weights.tied_bytes if weights.tied_kind in target.repacked else 0
        overhead = process + work_bytes(shape, plan)
        return Estimate(Parts(weights.total_bytes + twice, kv, step + logits, overhead))
    on_device, in_main_memory = _DRIVER_BYTES[target.backend]
    inputs = embedded_bytes(shape, plan)
    uploaded = weights.total_bytes - weights.looked_up_bytes + weights.tied_bytes
    device = Parts(uploaded, kv, step + inputs, on_device)
    masks = mask_bytes(shape, plan, flash_attention=flash_attention)
    host = Parts(weights.looked_up_bytes, 0, logits + masks + inputs, process + in_main_memory)
    return Estimate(device + host) if target.backend == "metal" else Estimate(device, host)


def corrected(first: Estimate, records: Sequence[LoadRecord]) -> Estimate:
    """`first`, its compute and overhead as earlier loads suggest. Weights and cache are exact and stay.

    Args:
        records: of the same architecture and the same kind of device, oldest first.
    """
    recent = records[-_RECENT:]
    compute = _ratio([(record.actual.compute_bytes, record.estimated.compute_bytes) for record in recent])
    overhead = _ratio([(record.actual.overhead_bytes, record.estimated.overhead_bytes) for record in recent])
    return Estimate(_scaled(first.device, compute, overhead), _scaled(first.host, compute, overhead))


def _ratio(pairs: Sequence[tuple[int, int]]) -> float:
    """What to multiply an estimate with: the middle of the ratios, so that one odd load decides nothing.

    The first loads may raise an estimate; it takes some that agree to lower it.
    """
    ratios = [actual / estimated for actual, estimated in pairs if actual > 0 and estimated > 0]
    if not ratios:
        return 1.0
    if len(ratios) < _ENOUGH_TO_LOWER:
        return min(max(min(ratios), 1.0), _MOST_RATIO)
    return min(max(median_high(ratios), _LEAST_RATIO), _MOST_RATIO)


def _scaled(parts: Parts, compute: float, overhead: float) -> Parts:
    return replace(
        parts,
        compute_bytes=round(parts.compute_bytes * compute),
        overhead_bytes=round(parts.overhead_bytes * overhead),
    )
