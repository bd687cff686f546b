"""All devices of this node. GPUs are not detected yet: the list has the processor alone."""

import anyio.to_thread

from rbee_hive.devices import cpu
from rbee_hive.domain.device_choice import CPU, DeviceName
from rbee_shared.contracts.nodes import CpuDevice, DeviceLoad
from rbee_shared.machine_limits import memory

_GB = 1_000_000_000


def present() -> tuple[DeviceName, ...]:
    """The devices that an order may name."""
    return (CPU,)


async def cpu_device() -> CpuDevice:
    """The processor, with what is free now."""
    return await anyio.to_thread.run_sync(_cpu_device)


async def free_bytes(device: DeviceName) -> int:
    """What that device has free now."""
    assert device == CPU
    return (await anyio.to_thread.run_sync(memory)).free_bytes


async def loads() -> tuple[DeviceLoad, ...]:
    """What changes between two heartbeats."""
    return await anyio.to_thread.run_sync(_loads)


def _cpu_device() -> CpuDevice:
    now = memory()
    return CpuDevice(
        name=cpu.model_name(),
        cores=cpu.cores(),
        ram_bytes=now.total_bytes,
        free_bytes=now.free_bytes,
        ram_gb=round(now.total_bytes / _GB, 1),
    )


def _loads() -> tuple[DeviceLoad, ...]:
    return (DeviceLoad(id=CPU.id, free_bytes=memory().free_bytes, utilisation_pct=cpu.utilisation_pct()),)
