"""NVML, asked plainly: every function here blocks and may hang; a refusal is a `DriverError` with its next step.

What a card cannot tell is None; only its handle, UUID, name and memory must be had.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from rbee_hive.domain.devices.nvidia_devices import CardReading, Part

T = TypeVar("T")

_BROKEN = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
_NEXT_STEP = {
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated while the old one is still loaded: reboot",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the nvidia kernel module: `sudo modprobe nvidia`",
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not open /dev/nvidia*",
    pynvml.NVML_ERROR_GPU_IS_LOST: "it fell off the bus: reset it, or reboot",
    pynvml.NVML_ERROR_RESET_REQUIRED: "reset it with `sudo nvidia-smi --gpu-reset`",
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: "plug in its power cables",
}


class DriverError(Exception):
    """NVML is there and refuses."""


class NoDriverError(DriverError):
    """This machine has no NVML library: it is no NVIDIA machine."""


@dataclass(frozen=True)
class Driver:
    """The library as it was found. `cards`: how many there are, those that fail included."""

    version: str | None
    cards: int


def start() -> Driver:
    """Load and initialise the library; `stop` undoes it."""
    with _explained():
        pynvml.nvmlInit()
        return Driver(_optional(pynvml.nvmlSystemGetDriverVersion), pynvml.nvmlDeviceGetCount())


def stop() -> None:
    with _explained():
        pynvml.nvmlShutdown()


def read_card(place: int) -> CardReading:
    """Everything about the card that NVML counts as `place`."""
    with _explained():
        handle = pynvml.nvmlDeviceGetHandleByIndex(place)
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        mode = _optional(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
        is_mig = mode == pynvml.NVML_DEVICE_MIG_ENABLE
        parts = _instances(handle) if is_mig else [_part(handle, uuid, name, _temperature_c(handle))]
        return CardReading(uuid, name, is_mig, tuple(parts))


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except pynvml.NVMLError_LibraryNotFound:
        raise NoDriverError from None
    except pynvml.NVMLError as error:
        # put in words here, in the thread: pynvml takes a lock for it, which a hanging call may hold
        step = _NEXT_STEP.get(error.value)
        raise DriverError(str(error).rstrip(".") + (f" ({step})" if step else "")) from None
    except UnicodeDecodeError:
        raise DriverError("it answers with bytes that are no text") from None


def _instances(card: Any) -> list[Part]:
    temperature_c = _temperature_c(card)  # only the whole card has a sensor
    parts = []
    for at in range(_optional(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(card)) or 0):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, at)
        except pynvml.NVMLError_NotFound:
            continue  # NVML leaves gaps where an instance was destroyed
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        parts.append(_part(handle, uuid, name, temperature_c))
    return parts


def _part(handle: Any, uuid: str, name: str, temperature_c: float | None) -> Part:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = (memory.total, memory.free) if memory.total else (None, None)
    except pynvml.NVMLError_NotSupported:
        total, free = None, None  # GB10, Jetson: they use the processor's
    busy = _optional(lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    return Part(uuid, name, total, free, busy, temperature_c)


def _temperature_c(handle: Any) -> float | None:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    told = _optional(lambda: float(pynvml.nvmlDeviceGetTemperatureV(handle, sensor)))
    # the first is missing in drivers before 570, the second will be in those after CUDA 13
    return told if told is not None else _optional(lambda: float(pynvml.nvmlDeviceGetTemperature(handle, sensor)))


def _optional(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in _BROKEN:
            raise
        return None
