"""Which device is chosen, asked of a library with as many devices as a test wants."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from llm_worker_rbee.engine.devices import Devices
from rbee_shared.errors import BackendUnavailableError

CPU, GPU, IGPU, ACCEL = range(4)
MIB = 1024 * 1024


@dataclass
class Library:
    """ggml's and llama.cpp's functions for devices. `kinds`: what each registry has; handles count from 100 up."""

    kinds: dict[str, list[int]] = field(default_factory=lambda: {"CPU": [CPU]})
    offloads: bool = True
    memory_bytes: int = 1

    def __post_init__(self) -> None:
        names = list(self.kinds)

        # functions, as attributes of their own can be set on them: the code under test declares their types
        def by_name(name: bytes) -> int | None:
            return names.index(name.decode()) + 1 if name.decode() in names else None

        def device_type(handle: int) -> int:
            return self.kinds[names[handle // 100 - 1]][handle % 100]

        def memory(handle: int, free: Any, total: Any) -> None:
            free._obj.value, total._obj.value = handle * self.memory_bytes, 1000 * self.memory_bytes

        functions: dict[str, Any] = {
            "ggml_backend_reg_by_name": by_name,
            "ggml_backend_reg_dev_count": lambda registry: len(self.kinds[names[registry - 1]]),
            "ggml_backend_reg_dev_get": lambda registry, index: registry * 100 + index,
            "ggml_backend_dev_description": lambda handle: f"device {handle}".encode(),
            "ggml_backend_dev_type": device_type,
            "ggml_backend_dev_memory": memory,
            "llama_supports_gpu_offload": lambda: self.offloads,
        }
        for name, function in functions.items():
            setattr(self, name, function)


PLAIN = Library()
TWO_CARDS = Library({"CPU": [CPU], "CUDA": [GPU, GPU]})
NO_CARD = Library({"CPU": [CPU], "CUDA": []}, offloads=False)
MAC = Library({"MTL": [GPU], "CPU": [CPU], "BLAS": [ACCEL]})
LAPTOP = Library({"CPU": [CPU], "Vulkan": [IGPU, CPU]})


@pytest.mark.parametrize(
    ("library", "backend", "device", "expected"),
    [
        pytest.param(PLAIN, "cpu", "0", ("cpu", 0, None), id="processor"),
        pytest.param(PLAIN, "cpu", "cpu", ("cpu", 0, None), id="processor by name"),
        pytest.param(PLAIN, "cpu", "cpu:0", ("cpu", 0, None), id="processor by id"),
        pytest.param(TWO_CARDS, "cpu", "0", ("cpu", 0, None), id="processor beside cards"),
        pytest.param(TWO_CARDS, "cuda", "0", ("cuda:0", 0, 200), id="first card"),
        pytest.param(TWO_CARDS, "cuda", "1", ("cuda:1", 1, 201), id="exactly the second card"),
        pytest.param(TWO_CARDS, "cuda", "cuda:1", ("cuda:1", 1, 201), id="second card by id"),
        pytest.param(MAC, "metal", "0", ("metal:0", 0, 100), id="Metal"),
        pytest.param(LAPTOP, "vulkan", "vulkan:0", ("vulkan:0", 0, 200), id="integrated"),
    ],
)
def test_the_device_that_is_meant(
    library: Library, backend: str, device: str, expected: tuple[str, int, int | None]
) -> None:
    devices = Devices(library, library)
    chosen = devices.choose(backend, device)

    assert (chosen.id, chosen.index, devices.handle(chosen)) == expected
    assert chosen.backend == backend
    assert chosen.description.startswith("device ")


@pytest.mark.parametrize(
    ("library", "backend", "device", "why"),
    [
        pytest.param(PLAIN, "cuda", "0", "no cuda backend", id="a build without it"),
        pytest.param(PLAIN, "metal", "0", "no metal backend", id="a build without Metal"),
        pytest.param(NO_CARD, "cuda", "0", "there: none", id="the build has it, the machine does not"),
        pytest.param(TWO_CARDS, "cuda", "2", "there: cuda:0, cuda:1", id="one too far"),
        pytest.param(TWO_CARDS, "cuda", "-1", "no device -1", id="negative"),
        pytest.param(TWO_CARDS, "cuda", "metal:0", "no device metal:0", id="another backend's"),
        pytest.param(TWO_CARDS, "cuda", "cpu", "no device cpu", id="the processor is no card"),
        pytest.param(TWO_CARDS, "cuda", "", "no device ", id="nothing"),
        pytest.param(PLAIN, "cpu", "1", "there: cpu", id="a second processor"),
        pytest.param(LAPTOP, "vulkan", "1", "no graphics device", id="drawn by the processor"),
        pytest.param(Library({"CUDA": [GPU]}, offloads=False), "cuda", "0", "does not offload", id="cannot offload"),
    ],
)
def test_what_is_not_there_is_refused(library: Library, backend: str, device: str, why: str) -> None:
    with pytest.raises(BackendUnavailableError, match=why):
        Devices(library, library).choose(backend, device)


def test_free_memory_is_that_of_the_device() -> None:
    devices = Devices(TWO_CARDS, TWO_CARDS)

    assert devices.free_bytes(devices.choose("cuda", "1")) == 201
    assert devices.free_bytes(devices.choose("cpu", "0")) > MIB, "main memory"


def test_a_device_without_memory_of_its_own_uses_main_memory() -> None:
    library = Library({"Vulkan": [IGPU]}, memory_bytes=0)
    devices = Devices(library, library)

    assert devices.free_bytes(devices.choose("vulkan", "0")) > MIB
