"""What `sysctl` and `system_profiler` say about an Apple machine, as the device that Metal makes of it.

Pure, and forgiving: whatever their output looks like, what cannot be read is unknown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbee_hive.domain.devices.device_choice import DeviceName
from rbee_hive.domain.devices.found_devices import Found
from rbee_shared.contracts.nodes import GpuDevice
from rbee_shared.machine_limits import Memory

SYSCTL_NAMES = ("machdep.cpu.brand_string", "hw.memsize", "hw.optional.arm64", "iogpu.wired_limit_mb")
METAL = DeviceName("gpu0", "metal", 0)

_GB = 1_000_000_000
_MIB = 1024 * 1024
_LARGE_BYTES = 36 * 1024 * _MIB


@dataclass(frozen=True)
class AppleFacts:
    """An Apple machine. `wired_limit_bytes`: what its owner set for the GPU, None where the system decides."""

    chip: str
    memory_bytes: int
    is_apple_silicon: bool
    wired_limit_bytes: int | None = None


@dataclass(frozen=True)
class AppleGpu:
    """The graphics part of the chip."""

    name: str
    cores: int | None


def parse_sysctl(text: str) -> AppleFacts | None:
    """From `sysctl NAME…`, one `name: value` a line, names that this system does not know left out."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    memory_bytes = _number(values.get("hw.memsize"))
    if not memory_bytes:
        return None
    chip = values.get("machdep.cpu.brand_string", "").strip() or "Apple"
    limit_mib = _number(values.get("iogpu.wired_limit_mb")) or 0
    is_silicon = values.get("hw.optional.arm64", "").strip() == "1"
    return AppleFacts(chip, memory_bytes, is_silicon, limit_mib * _MIB or None)


def parse_displays(text: str) -> AppleGpu | None:
    """From `system_profiler SPDisplaysDataType -json`: the first GPU that Apple made."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    listed = document.get("SPDisplaysDataType") if isinstance(document, Mapping) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, Mapping) and "apple" in str(entry.get("spdisplays_vendor", "")).lower():
            return AppleGpu(_name(entry), _number(entry.get("sppci_cores")))
    return None


def working_set_bytes(facts: AppleFacts) -> int:
    """How much memory Metal recommends that a program keeps on the GPU.

    Source:
        What Metal calls `recommendedMaxWorkingSetSize`, as measured by users of llama.cpp and MLX: 10.67 of 16 GiB,
        21.3 of 32, 48 of 64, 96 of 128, 384 of 512. Newer systems grant more (11.8 of 16, 107.5 of 128), none less:
        the estimate errs low. `sysctl iogpu.wired_limit_mb` overrides it, and Metal then reports that value.
    """
    if facts.wired_limit_bytes is not None:
        return min(facts.wired_limit_bytes, facts.memory_bytes)
    if facts.memory_bytes <= _LARGE_BYTES:
        return facts.memory_bytes * 2 // 3
    return facts.memory_bytes * 3 // 4


def apple_devices(facts: AppleFacts | None, gpu: AppleGpu | None, ram: Memory) -> Found:
    """The one device that Metal has on Apple silicon; it shares the processor's memory."""
    if facts is None:
        return Found(problems=("Metal: sysctl does not tell how much memory this machine has",))
    if not facts.is_apple_silicon:
        return Found(problems=("Metal: the GPUs of Intel machines are not used",))
    limit = working_set_bytes(facts)
    device = GpuDevice(
        id=METAL.id,
        backend=METAL.backend,
        index=METAL.index,
        name=gpu.name if gpu else facts.chip,
        vram_bytes=limit,
        free_bytes=min(limit, ram.free_bytes),
        vram_gb=round(limit / _GB, 1),
        cores=gpu.cores if gpu else None,
        unified=True,
    )
    return Found((METAL,), (device,))


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("sppci_model") or entry.get("_name") or "Apple GPU")[:255]


def _number(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 - 64 bits
