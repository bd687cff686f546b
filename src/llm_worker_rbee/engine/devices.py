"""Which device a backend's number means, asked of the library that is really loaded: never a silent fall-back."""

import ctypes
from typing import Any

from llm_worker_rbee.domain.engine_events import Device
from rbee_shared.errors import BackendUnavailableError

# as ggml's registries call themselves; Metal's has had two names
_REGISTRY_NAMES = {"cpu": (b"CPU",), "cuda": (b"CUDA",), "metal": (b"MTL", b"Metal"), "vulkan": (b"Vulkan",)}


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
        ):
            function = getattr(ggml, name)
            function.argtypes, function.restype = arguments, result

    def choose(self, backend: str, device: str) -> tuple[Device, int]:
        """The device, and its handle for llama.cpp.

        Raises:
            BackendUnavailableError: this build has no such backend, or that backend no such device.
        """
        registries = map(self._ggml.ggml_backend_reg_by_name, _REGISTRY_NAMES[backend])
        registry = next(filter(None, registries), None)
        usable = registry and (backend == "cpu" or self._bindings.llama_supports_gpu_offload())
        if not usable:
            raise BackendUnavailableError(
                f"this worker build of llama.cpp has no {backend} backend",
                hint=f"Start it with a build that has {backend}, or choose --backend cpu.",
            )
        count = self._ggml.ggml_backend_reg_dev_count(registry)
        index = _index(backend, device)
        if index is None or index >= count:
            there = ", ".join(f"{backend}:{number}" for number in range(count)) if backend != "cpu" else "cpu"
            raise BackendUnavailableError(
                f"backend {backend} has no device {device} on this machine (there: {there or 'none'})"
            )
        handle = self._ggml.ggml_backend_reg_dev_get(registry, index)
        description = self._ggml.ggml_backend_dev_description(handle).decode(errors="replace")
        name = "cpu" if backend == "cpu" else f"{backend}:{index}"
        return Device(id=name, backend=backend, index=index, description=description), handle


def _index(backend: str, device: str) -> int | None:
    """`0`, `cuda:0` and (for the processor) `cpu` are spellings of the first device."""
    number = device.removeprefix(f"{backend}:")
    if backend == "cpu" and number == "cpu":
        return 0
    return int(number) if number.isascii() and number.isdigit() else None
