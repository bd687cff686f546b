"""Room for workers: real headers and a real catalog, on a device whose free memory the test decides."""

import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from tests.support.models import storyteller

from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.devices.device_choice import CPU, DeviceName
from rbee_hive.domain.fit.capacity import require_room
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.library import ModelLibrary
from rbee_hive.workers.defaults import WorkerDefaults
from rbee_hive.workers.room import Need, Room
from rbee_shared.contracts.models import ImportRequest, ModelRow
from rbee_shared.contracts.workers import MemoryParts, WorkerRecord, WorkerState
from rbee_shared.errors import InsufficientMemoryError
from rbee_shared.narration import Narrator

GIB = 1024**3
GPU = DeviceName("gpu0", "cuda", 0)


class Free:
    """What devices have free."""

    def __init__(self) -> None:
        self.by_id = {"cpu": 64 * GIB, "gpu0": 8 * GIB}

    async def free_bytes(self, device: DeviceName, _held: Mapping[str, int]) -> int:
        return self.by_id[device.id]


class Bench:
    """A room with workers that the test makes up."""

    def __init__(self, catalog: ModelCatalog, row: ModelRow, defaults: WorkerDefaults) -> None:
        self.free, self.records, self.row = Free(), list[WorkerRecord](), row
        self.room = Room(catalog, cast("NodeDevices", self.free), lambda: tuple(self.records), defaults)

    def worker(self, worker_id: str, state: WorkerState, device: str = "cpu") -> WorkerRecord:
        record = WorkerRecord(
            id=worker_id, url=None, model_ref="m", backend="cpu", device=device, state=state, pid=1, started_at=0,
            last_activity=0, memory=MemoryParts(weights_bytes=5_000_000, kv_bytes=1_000_000, compute_bytes=30_000_000),
        )  # fmt: skip
        self.records.append(record)
        return record


@pytest.fixture
def defaults() -> WorkerDefaults:
    return WorkerDefaults()


@pytest.fixture
async def bench(tmp_path: Path, defaults: WorkerDefaults) -> AsyncGenerator[Bench]:
    (tmp_path / "m.gguf").write_bytes(storyteller())
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as catalog:
        library = ModelLibrary(catalog, tmp_path, (), Narrator("hive", lambda _: None))
        yield Bench(catalog, await library.take_in(ImportRequest(path=str(tmp_path / "m.gguf"))), defaults)


async def test_two_loads_side_by_side_do_not_get_the_same_room(bench: Bench) -> None:
    need = Need(GPU)
    required = (await bench.room.for_model(bench.row, need)).capacity.required_bytes
    bench.free.by_id["gpu0"] = GIB + required * 3 // 2  # the margin, and one and a half of it

    first, second = await bench.room.for_model(bench.row, need), await bench.room.for_model(bench.row, need)
    assert first.capacity.fits
    assert second.capacity.fits
    require_room(bench.room.again(first, GPU).capacity)
    bench.worker("w1", WorkerState.STARTING, "gpu0")
    bench.room.promise("w1", first)

    with pytest.raises(InsufficientMemoryError, match="are promised"):
        require_room(bench.room.again(second, GPU).capacity)
    bench.records[0] = bench.records[0].model_copy(update={"state": WorkerState.FAILED})
    assert bench.room.again(second, GPU).capacity.fits, "it is gone, and its promise with it"


async def test_main_memory_counts_too_for_a_device_with_its_own(bench: Bench) -> None:
    first = await bench.room.for_model(bench.row, Need(GPU))
    assert first.capacity.host_bytes > 0
    bench.free.by_id["cpu"] = 0
    assert not (await bench.room.for_model(bench.row, Need(GPU))).capacity.fits
    bench.worker("w1", WorkerState.LOADING, "gpu0")
    bench.room.promise("w1", first)
    later = bench.room.again(first, GPU).capacity
    assert later.host_free_bytes == (first.capacity.host_free_bytes or 0) - first.capacity.host_bytes


async def test_what_a_load_took_corrects_the_next_estimate(bench: Bench) -> None:
    before = await bench.room.for_model(bench.row, Need(CPU))
    for number in range(3):
        record = bench.worker(f"w{number}", WorkerState.IDLE)
        bench.room.promise(record.id, before)
        await bench.room.note_load(record)
    bench.records.clear()

    after = (await bench.room.for_model(bench.row, Need(CPU))).capacity
    assert (before.capacity.corrected_by_loads, after.corrected_by_loads) == (0, 3)
    assert after.compute_bytes != before.capacity.compute_bytes
    assert (after.weights_bytes, after.kv_bytes) == (before.capacity.weights_bytes, before.capacity.kv_bytes)
    await bench.room.note_load(bench.worker("nobody ordered it", WorkerState.IDLE))


async def test_a_header_that_only_llama_cpp_may_know_is_judged_by_its_size(bench: Bench) -> None:
    await anyio.Path(bench.row.local_path or "").write_bytes(
        storyteller().replace(b"llama.block_count", b"llama.clock_bount")
    )
    assessed = await bench.room.for_model(bench.row, Need(CPU))
    assert (assessed.capacity.basis, assessed.estimate) == ("size", None)
    assert (await bench.room.for_size("m", 1000, Need(CPU))).capacity.required_bytes == 1200


@pytest.mark.parametrize("defaults", [WorkerDefaults(n_ctx=512, slots=2, kv="split", kv_type="q8_0", flash_attn="on")])
async def test_what_the_owner_said_about_workers_counts_and_an_order_counts_more(bench: Bench) -> None:
    told = (await bench.room.for_model(bench.row, Need(CPU))).capacity
    assert (told.n_ctx, told.slots) == (512, 2)
    ordered = (await bench.room.for_model(bench.row, Need(CPU, n_ctx=1024, slots=1))).capacity
    assert (ordered.n_ctx, ordered.slots) == (1024, 1)


@pytest.mark.parametrize(
    ("file", "environment", "expected"),
    [
        ("", {}, WorkerDefaults()),
        ('[worker]\nslots = 8\nkv = "split"', {}, WorkerDefaults(slots=8, kv="split")),
        ("[worker]\nslots = 8", {"RBEE_WORKER_SLOTS": "2"}, WorkerDefaults(slots=2)),
        ('[worker]\nkv_type = "q9"\nn_ctx = -1', {"RBEE_WORKER_N_CTX": "many"}, WorkerDefaults()),
        ('[worker]\nkv_type = "q8_0"\nflash_attn = "off"', {}, WorkerDefaults(kv_type="q8_0", flash_attn="off")),
    ],
)
def test_where_it_is_said(tmp_path: Path, file: str, environment: dict[str, Any], expected: WorkerDefaults) -> None:
    (tmp_path / "config.toml").write_text(file)
    assert WorkerDefaults.load(tmp_path / "config.toml", {**environment, "PATH": os.defpath}) == expected
