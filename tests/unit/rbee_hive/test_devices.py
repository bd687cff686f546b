"""Devices as decisions: what they are called, which one is meant, what is declared, what the raw readings mean."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rbee_hive.domain.devices.cpu_facts import (
    CpuFacts,
    CpuLoad,
    Ticks,
    cpu_device,
    temperature_c,
    usable_cores,
    utilisation_pct,
)
from rbee_hive.domain.devices.declaration import Backend, DeclaredDevice, require_consistent
from rbee_hive.domain.devices.declared_devices import declared_gpus, declared_names
from rbee_hive.domain.devices.device_choice import CPU, DeviceName, choose_device, device_ids
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.settings import HiveSettings
from rbee_shared.contracts import tasks
from rbee_shared.contracts.workers import MemoryParts, WorkerRecord, WorkerState
from rbee_shared.errors import BackendUnavailableError
from rbee_shared.machine_limits import Memory

GB = 10**9
CUDA0, CUDA1 = DeviceName("gpu0", "cuda", 0), DeviceName("gpu1", "cuda", 1)
METAL = DeviceName("gpu0", "metal", 0)
TWO_ZEROS = (DeviceName("cuda:0", "cuda", 0), DeviceName("vulkan:0", "vulkan", 0), CPU)
FACTS = CpuFacts("EPYC", cores=128, physical_cores=64, logical_cores=128, quota_cores=None, ram_limit_bytes=None)


@pytest.mark.parametrize(
    ("devices", "ids"),
    [
        ([], ()),
        ([("cuda", 0), ("cuda", 1)], ("gpu0", "gpu1")),
        ([("cuda", 1)], ("gpu1",)),
        ([("cuda", 0), ("vulkan", 0), ("vulkan", 1)], ("cuda:0", "vulkan:0", "gpu1")),
    ],
)
def test_ids_say_the_index_and_are_unique(devices: list[tuple[str, int]], ids: tuple[str, ...]) -> None:
    assert device_ids(devices) == ids


@given(st.lists(st.tuples(st.sampled_from(["cuda", "metal", "vulkan"]), st.integers(0, 5)), unique=True))
def test_every_id_and_every_plain_spelling_chooses_its_own_device(devices: list[tuple[str, int]]) -> None:
    names = [DeviceName(id_, *device) for id_, device in zip(device_ids(devices), devices, strict=True)]
    present = [*names, CPU]

    assert len({name.id for name in present}) == len(present)
    for name in present:
        assert choose_device(None, name.id, present) == name
        assert choose_device(None, f"{name.backend}:{name.index}".upper(), present) == name
        assert choose_device(name.backend, name.index, present) == name
        assert choose_device(name.backend, str(name.index), present) == name


@pytest.mark.parametrize(
    ("backend", "device", "present", "expected"),
    [
        pytest.param(None, None, (CUDA0, CUDA1, CPU), CUDA0, id="nothing said: the first"),
        pytest.param("cuda", None, (CUDA0, CUDA1, CPU), CUDA0, id="a backend: its first"),
        pytest.param("cpu", None, (CUDA0, CUDA1, CPU), CPU, id="the processor, though it is last"),
        pytest.param(None, "metal", (METAL, CPU), METAL, id="a backend's name for a device"),
        pytest.param(None, "GPU1", (CUDA0, CUDA1), CUDA1, id="in capitals"),
        pytest.param("vulkan", "gpu0", TWO_ZEROS, TWO_ZEROS[1], id="gpu0 is clear with a backend"),
    ],
)
def test_spellings(
    backend: str | None, device: int | str | None, present: tuple[DeviceName, ...], expected: DeviceName
) -> None:
    assert choose_device(backend, device, present) == expected


@pytest.mark.parametrize(
    ("backend", "device", "present", "words"),
    [
        pytest.param(None, "gpu0", TWO_ZEROS, "cuda:0 or vulkan:0", id="one name, two devices"),
        pytest.param(None, 1, (CUDA0, CUDA1), "it has gpu0, gpu1", id="a number without a backend"),
        pytest.param("cpu", "gpu0", (CUDA0, CPU), "it has gpu0, cpu", id="a backend that contradicts"),
        pytest.param("cuda", 2, (CUDA0, CUDA1), "'cuda 2'", id="no such index"),
        pytest.param(None, "gpu", (CUDA0,), "'gpu'", id="half a name"),
        pytest.param(None, "", (CUDA0,), "''", id="an empty name"),
        pytest.param("cpu", None, (CUDA0,), "'cpu'", id="a processor that is not offered"),
    ],
)
def test_what_names_no_device_is_refused(
    backend: str | None, device: int | str | None, present: tuple[DeviceName, ...], words: str
) -> None:
    with pytest.raises(BackendUnavailableError, match=words):
        choose_device(backend, device, present)


@given(st.none() | st.text(max_size=12), st.none() | st.integers() | st.text(max_size=12))
def test_whatever_is_asked_for_is_a_device_or_refused(backend: str | None, device: int | str | None) -> None:
    with suppress(BackendUnavailableError):
        assert choose_device(backend, device, TWO_ZEROS) in TWO_ZEROS


def test_what_a_worker_is_told() -> None:
    assert (CPU.worker_backend, CPU.worker_device) == ("cpu", "cpu")
    assert (CUDA1.worker_backend, CUDA1.worker_device) == ("cuda", "cuda:1")
    pinned = DeviceName("gpu1", "cuda", 1, seen_as=0)
    assert pinned.worker_device == "cuda:0"
    declared = DeviceName("gpu1", "cuda", 1, build="cpu")
    assert (declared.worker_backend, declared.worker_device) == ("cpu", "cpu")


def _declared(**entry: object) -> DeclaredDevice:
    return DeclaredDevice.model_validate({"backend": "cuda", "name": "RTX 3090", "vram_bytes": 24 * GB, **entry})


def test_declared_devices_keep_their_names_and_what_serves_them() -> None:
    devices = (_declared(index=1, build="cpu"), _declared(), _declared(backend="cpu", vram_bytes=None))

    first, second, third = declared_names(devices)
    assert (first.id, first.worker_backend, first.worker_device, first.environment) == ("gpu1", "cpu", "cpu", ())
    assert (second.id, second.worker_device) == ("gpu0", "cuda:0")
    assert second.environment == (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
    assert third == CPU
    assert declared_names(devices[:2]) == (first, second)  # the processor is offered only if it is named


@pytest.mark.parametrize(
    ("build", "held", "ram_free", "free"),
    [
        pytest.param("cpu", {}, 100 * GB, 24 * GB, id="all of it"),
        pytest.param("cpu", {"gpu0": 4 * GB, "gpu1": 9 * GB}, 100 * GB, 20 * GB, id="less its own workers'"),
        pytest.param("cpu", {"gpu0": 4 * GB}, 3 * GB, 3 * GB, id="no more than the RAM that computes it has"),
        pytest.param("cpu", {"gpu0": 99 * GB}, 3 * GB, 0, id="never below nothing"),
        pytest.param("cuda", {"gpu0": 4 * GB}, 3 * GB, 20 * GB, id="a real card's memory is no RAM"),
    ],
)
def test_what_a_declared_device_has_free(build: Backend, held: Mapping[str, int], ram_free: int, free: int) -> None:
    (gpu,) = declared_gpus((_declared(build=build),), held, ram_free)

    assert (gpu.free_bytes, gpu.vram_bytes, gpu.vram_gb, gpu.declared, gpu.build) == (free, 24 * GB, 24.0, True, build)
    assert gpu.declaration == f"declared cuda, computed on {build}"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{}, {"index": 1}, {"name": "another"}], r"entry 3 \(cuda:0\) declares the same device as entry 1"),
        ([{"backend": "cpu", "vram_bytes": None}] * 2, r"entry 2 \(cpu:0\) declares the same device"),
        ([{}, {"backend": "cpu", "index": 1}], r"entry 2 \(cpu:1\) is a second processor"),
        ([{"backend": "cpu", "build": "cuda"}], r"entry 1 \(cpu:0\) is the processor, which no cuda build serves"),
        ([{"vram_bytes": None}], r"entry 1 \(cuda:0\) has no vram_bytes"),
        ([{"name": "RTX\x1b[31m"}], r"entry 1 \(cuda:0\) has control characters in its name"),
    ],
)
def test_contradictory_declarations_are_refused_naming_the_entry(entries: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        require_consistent([_declared(**entry) for entry in entries])
    with pytest.raises(ValidationError, match=words):
        HiveSettings(devices=tuple(_declared(**entry) for entry in entries))


def test_what_does_not_contradict_itself_is_taken() -> None:
    devices = (_declared(), _declared(backend="vulkan"), _declared(backend="cpu", build="cpu", vram_bytes=None))
    assert HiveSettings(devices=devices).devices == devices


@pytest.mark.parametrize(
    "entry", [{"vram_bytes": 0}, {"index": -1}, {"backend": "abacus"}, {"name": ""}, {"speed": 9}, {"build": "rocm"}]
)
def test_values_out_of_bounds_are_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(entry))):
        _declared(**entry)


def test_what_may_be_declared_is_what_the_wire_knows() -> None:
    assert get_args(Backend) == get_args(tasks.Backend)


def test_the_processor_on_the_wire() -> None:
    load = CpuLoad(Memory(512 * GB, 300 * GB), 12.5)
    seen = cpu_device(FACTS, load, 44.0, (), {})
    assert (seen.cores, seen.physical_cores, seen.ram_bytes, seen.free_bytes, seen.ram_gb) == (
        128, 64, 512 * GB, 300 * GB, 512.0
    )  # fmt: skip
    assert (seen.utilisation_pct, seen.temperature_c, seen.offered, seen.declared) == (12.5, 44.0, True, False)

    hidden = cpu_device(FACTS, load, None, (_declared(),), {})
    assert (hidden.name, hidden.free_bytes, hidden.offered) == ("EPYC", 300 * GB, False)

    entry = _declared(backend="cpu", name="a slice", vram_bytes=8 * GB)
    declared = cpu_device(FACTS, load, None, (entry,), {"cpu": 3 * GB})
    assert (declared.name, declared.ram_bytes, declared.free_bytes) == ("a slice", 8 * GB, 5 * GB)
    assert (declared.offered, declared.declared) == (True, True)

    unbounded = cpu_device(FACTS, load, None, (_declared(backend="cpu", vram_bytes=None),), {"cpu": 3 * GB})
    assert (unbounded.ram_bytes, unbounded.free_bytes) == (512 * GB, 300 * GB)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (Ticks(0, 0), Ticks(1, 4), 25.0),
        (Ticks(5, 10), Ticks(5, 14), 0.0),
        (Ticks(5, 10), Ticks(9, 14), 100.0),
        pytest.param(Ticks(5, 10), Ticks(5, 10.05), None, id="too close to tell"),
        pytest.param(Ticks(5, 10), Ticks(4.9, 14), 0.0, id="iowait runs backwards on some kernels"),
        pytest.param(Ticks(5, 10), Ticks(1, 2), None, id="a machine that was resumed"),
        pytest.param(Ticks(0, 0), Ticks(9, 4), 100.0, id="never above all"),
    ],
)
def test_utilisation(before: Ticks, now: Ticks, expected: float | None) -> None:
    assert utilisation_pct(before, now) == expected


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        ({}, None),
        ({"nvme": [("Composite", 70.0)], "acpitz": [("", 30.0)]}, None),
        ({"coretemp": [("Package id 0", 50.0), ("Core 0", 61.0), ("Package id 1", 55.0)]}, 55.0),
        ({"k10temp": [("Tctl", 66.5), ("Tccd1", 70.0)]}, 66.5),
        ({"cpu_thermal": [("", 41.0), ("", 43.0)]}, 43.0),
        pytest.param({"coretemp": [("Core 0", 0.0)], "k10temp": [("Tctl", 40.0)]}, 40.0, id="0 is not connected"),
        pytest.param({"coretemp": [("Core 0", float("nan")), ("Core 1", 1e9)]}, None, id="nonsense"),
    ],
)
def test_temperature(sensors: dict[str, list[tuple[str, float]]], expected: float | None) -> None:
    assert temperature_c(sensors) == expected


@pytest.mark.parametrize(
    ("logical", "quota", "expected"), [(128, None, 128), (8, 2.5, 3), (8, 0.1, 1), (2, 6.0, 2), (4, 4.0, 4)]
)
def test_usable_cores(logical: int, quota: float | None, expected: int) -> None:
    assert usable_cores(logical, quota) == expected


def _worker(device: str, state: WorkerState, **memory: Any) -> WorkerRecord:
    return WorkerRecord(
        id="w", url=None, model_ref="m", backend="cpu", device=device, state=state, pid=1, started_at=0,
        last_activity=0, **memory,
    )  # fmt: skip


def test_memory_held_is_counted_by_device_and_only_of_the_living() -> None:
    parts = MemoryParts(weights_bytes=3 * GB, kv_bytes=2 * GB, compute_bytes=1 * GB)
    held = held_bytes(
        [
            _worker("gpu0", WorkerState.IDLE, memory=parts, memory_bytes=9 * GB),
            _worker("gpu0", WorkerState.LOADING, memory_bytes=1 * GB),
            _worker("gpu1", WorkerState.STARTING),
            _worker("cpu", WorkerState.FAILED, memory=parts),
            _worker("cpu", WorkerState.STOPPED, memory_bytes=GB),
        ]
    )

    assert dict(held) == {"gpu0": 7 * GB, "gpu1": 0}
    assert held.get("cpu", 0) == 0
