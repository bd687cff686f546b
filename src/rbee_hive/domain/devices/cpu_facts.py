"""What the raw readings of a processor mean: how busy, how warm, how many cores are ours; and its wire form."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbee_hive.domain.devices.declaration import DeclaredDevice
from rbee_hive.domain.devices.declared_devices import declared_cpu, declared_free_bytes
from rbee_hive.domain.devices.device_choice import CPU
from rbee_shared.contracts.nodes import CpuDevice
from rbee_shared.machine_limits import Memory

_GB = 1_000_000_000
# chips and labels under which the kernel and psutil name a processor's own sensor, best first
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
_LABELS = ("package id", "tctl", "tdie")
_PLAUSIBLE_C = (-40.0, 150.0)
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class CpuLoad:
    """What changes all the time."""

    ram: Memory
    utilisation_pct: float | None


@dataclass(frozen=True)
class CpuFacts:
    """What does not, or seldom. `physical_cores`: behind the logical ones; None where the system does not tell."""

    name: str
    cores: int
    physical_cores: int | None
    logical_cores: int
    quota_cores: float | None
    ram_limit_bytes: int | None


@dataclass(frozen=True)
class Ticks:
    """Seconds that all processors together have spent, since the machine started."""

    busy_s: float
    total_s: float


def cpu_device(
    facts: CpuFacts,
    load: CpuLoad,
    temperature: float | None,
    declared: Sequence[DeclaredDevice],
    held_bytes: Mapping[str, int],
) -> CpuDevice:
    """The processor in wire form. Devices that are declared offer it only if they name it."""
    entry = declared_cpu(declared)
    total_bytes = (entry and entry.vram_bytes) or load.ram.total_bytes
    return CpuDevice(
        name=entry.name if entry else facts.name,
        cores=facts.cores,
        physical_cores=facts.physical_cores,
        logical_cores=facts.logical_cores,
        quota_cores=facts.quota_cores,
        ram_bytes=total_bytes,
        free_bytes=cpu_free_bytes(load.ram, declared, held_bytes),
        ram_gb=round(total_bytes / _GB, 1),
        ram_limit_bytes=facts.ram_limit_bytes,
        utilisation_pct=load.utilisation_pct,
        temperature_c=temperature,
        declared=entry is not None,
        offered=entry is not None or not declared,
    )


def cpu_free_bytes(ram: Memory, declared: Sequence[DeclaredDevice], held_bytes: Mapping[str, int]) -> int:
    """Main memory that is free for workers on the processor."""
    entry = declared_cpu(declared)
    return ram.free_bytes if entry is None else declared_free_bytes(entry, held_bytes.get(CPU.id, 0), ram.free_bytes)


def utilisation_pct(before: Ticks, now: Ticks) -> float | None:
    """Of all processors between two looks; None when they are too close together to tell."""
    total_s = now.total_s - before.total_s
    if total_s < _SHORTEST_S:
        return None
    return round(min(100.0, max(0.0, 100.0 * (now.busy_s - before.busy_s) / total_s)), 1)


def temperature_c(sensors: Mapping[str, Sequence[tuple[str, float]]]) -> float | None:
    """The processor's, from (label, °C) by chip: that of the whole package, else the warmest core."""
    for chip in _SENSORS:
        known = [(label.lower(), value) for label, value in sensors.get(chip, ()) if _is_plausible(value)]
        packages = [value for label, value in known if label.startswith(_LABELS)]
        if known:
            return max(packages or [value for _, value in known])
    return None


def usable_cores(logical: int, quota: float | None) -> int:
    """Processors that this process may use, a container's quota rounded up."""
    return logical if quota is None else min(logical, max(1, math.ceil(quota)))


def _is_plausible(value: float) -> bool:
    low, high = _PLAUSIBLE_C
    return low < value < high and value != 0  # a sensor that is there and not connected says 0
