"""What declared devices are called, and what they have free. `rbee_hive.domain.devices.declaration` has their form."""

from collections.abc import Mapping, Sequence

from rbee_hive.domain.devices.declaration import DeclaredDevice
from rbee_hive.domain.devices.device_choice import CPU, PCI_ORDER, DeviceName, device_ids
from rbee_shared.contracts.nodes import GpuDevice

_GB = 1_000_000_000


def declared_names(devices: Sequence[DeclaredDevice]) -> tuple[DeviceName, ...]:
    """What orders may name: graphics devices as declared, then the processor, if that is declared."""
    names = tuple(name for name, _ in _named_gpus(devices))
    return names if declared_cpu(devices) is None else (*names, CPU)


def declared_cpu(devices: Sequence[DeclaredDevice]) -> DeclaredDevice | None:
    """The entry for the processor."""
    return next((device for device in devices if device.backend == "cpu"), None)


def declared_gpus(
    devices: Sequence[DeclaredDevice], held_bytes: Mapping[str, int], ram_free_bytes: int
) -> tuple[GpuDevice, ...]:
    """The graphics devices in wire form. `held_bytes`: what our workers hold, by the id of their device."""
    return tuple(
        GpuDevice(
            id=name.id,
            backend=gpu.backend,
            index=gpu.index,
            name=gpu.name,
            vram_bytes=gpu.vram_bytes or 0,
            free_bytes=declared_free_bytes(gpu, held_bytes.get(name.id, 0), ram_free_bytes),
            vram_gb=round((gpu.vram_bytes or 0) / _GB, 1),
            declared=True,
            build=name.worker_backend,
        )
        for name, gpu in _named_gpus(devices)
    )


def declared_free_bytes(device: DeclaredDevice, held_bytes: int, ram_free_bytes: int) -> int:
    """What is declared less what our workers hold of it; what runs on the processor has no more than the RAM has."""
    if device.vram_bytes is None:
        return ram_free_bytes
    free = max(0, device.vram_bytes - held_bytes)
    return min(free, ram_free_bytes) if device.built_for == "cpu" else free


def _named_gpus(devices: Sequence[DeclaredDevice]) -> list[tuple[DeviceName, DeclaredDevice]]:
    gpus = [device for device in devices if device.backend != "cpu"]
    ids = device_ids([(gpu.backend, gpu.index) for gpu in gpus])
    return [(_name(id_, gpu), gpu) for id_, gpu in zip(ids, gpus, strict=True)]


def _name(id_: str, gpu: DeclaredDevice) -> DeviceName:
    environment = (PCI_ORDER,) if gpu.built_for == "cuda" else ()
    return DeviceName(id_, gpu.backend, gpu.index, gpu.build, environment=environment)
