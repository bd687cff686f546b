"""Which device a backend's number means, asked of the library that is really loaded: never a silent fall-back.

That the model then really went there is proven after the load, by `domain.backend_proof`.
"""

import ctypes
from typing import Any

from llm_worker_rbee.domain.engine_events import Device
from rbee_shared.errors import BackendUnavailableError
from rbee_shared.machine_limits import memory

_REGISTRY_NAMES = {"cpu": b"CPU", "cuda": b"CUDA", "metal": b"MTL", "vulkan": b"Vulkan"}  # as ggml calls them
_CPU_TYPE, _GPU_TYPES = 0, frozenset({1, 2})  # GGML_BACKEND_DEVICE_TYPE_: CPU; GPU, IGPU

_SIZE = ctypes.POINTER(ctypes.c_size_t)


class Devices:
    """The devices of the loaded library."""

    def __init__(self, bindings: Any, ggml: Any) -> None:
        self._bindings = bindings
        self._ggml = ggml
        for name, arguments, result in (
            ("ggml_backend_reg_by_name", [ctypes.c_char_p], ctypes.c_void_p),
            ("ggml_backend_reg_dev_count", [ctypes.c_void_p], ctypes.c_size_t),
            ("ggml_backend_reg_dev_get", [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p),
            ("ggml_backend_dev_description", [ctypes.c_void_p], ctypes.c_char_p),
            ("ggml_backend_dev_type", [ctypes.c_void_p], ctypes.c_int),
            ("ggml_backend_dev_memory", [ctypes.c_void_p, _SIZE, _SIZE], None),
        ):
            function = getattr(ggml, name)
            function.argtypes, function.restype = arguments, result

    def choose(self, backend: str, device: str) -> Device:
        """The device that is meant.

        Raises:
            BackendUnavailableError: this build has no such backend, or that backend no such device.
        """
        handles = self._handles(backend)
        index = _index(backend, device)
        if index is None or index >= len(handles):
            there = ", ".join(_id(backend, number) for number in range(len(handles)))
            raise BackendUnavailableError(
                f"backend {backend} has no device {device} on this machine (there: {there or 'none'})",
                hint="Choose a device that is there, or --backend cpu.",
            )
        handle = handles[index]
        if self._ggml.ggml_backend_dev_type(handle) not in ({_CPU_TYPE} if backend == "cpu" else _GPU_TYPES):
            raise BackendUnavailableError(f"{_id(backend, index)} is no graphics device", hint="Choose another one.")
        return Device(id=_id(backend, index), backend=backend, index=index, description=self._description(handle))

    def by_backend(self) -> dict[str, tuple[str, ...]]:
        """The backends that this build has, each with the descriptions of its devices; it may have none here."""
        return {
            backend: tuple(map(self._description, self._handles(backend)))
            for backend, name in _REGISTRY_NAMES.items()
            if self._ggml.ggml_backend_reg_by_name(name)
        }

    def handle(self, device: Device) -> int | None:
        """What llama.cpp is to put the model on; None for the processor, which it always has."""
        return None if device.backend == "cpu" else self._handles(device.backend)[device.index]

    def free_bytes(self, device: Device) -> int:
        """Memory of the device that is free now."""
        if (handle := self.handle(device)) is None:
            return memory().free_bytes  # ggml calls all memory of a processor free
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        return free.value if total.value else memory().free_bytes  # a device without memory of its own

    def _description(self, handle: int) -> str:
        return str(self._ggml.ggml_backend_dev_description(handle).decode(errors="replace"))

    def _handles(self, backend: str) -> list[int]:
        registry = self._ggml.ggml_backend_reg_by_name(_REGISTRY_NAMES[backend])
        if not registry:
            raise BackendUnavailableError(
                f"this worker build of llama.cpp has no {backend} backend",
                hint=f"Start it with a build that has {backend}, or choose --backend cpu.",
            )
        count = self._ggml.ggml_backend_reg_dev_count(registry)
        if backend != "cpu" and count and not self._bindings.llama_supports_gpu_offload():
            raise BackendUnavailableError(f"llama.cpp does not offload to {backend} in this build")
        return [self._ggml.ggml_backend_reg_dev_get(registry, number) for number in range(count)]


def _id(backend: str, index: int) -> str:
    return "cpu" if backend == "cpu" else f"{backend}:{index}"


def _index(backend: str, device: str) -> int | None:
    """`1` and `cuda:1` are spellings of one device; the processor's only one is also called `cpu`."""
    number = device.removeprefix(f"{backend}:")
    if backend == "cpu" and number == "cpu":
        return 0
    return int(number) if number.isascii() and number.isdigit() else None
