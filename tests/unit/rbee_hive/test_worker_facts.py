"""What the hive takes from a worker's own word, and shows in its record."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest

from rbee_hive.workers.lifecycle import Surroundings, Worker
from rbee_hive.workers.memory_proof import look_before, proof
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.process import HiveSide, WorkerProcess
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat, WorkerState
from rbee_shared.errors import BackendUnavailableError
from rbee_shared.narration import Narration, Narrator
from rbee_shared.narration_hub import NarrationHub
from rbee_shared.paths import Home

DeviceFree = Callable[[str], Awaitable[int | None]]
MEMORY = MemoryParts(weights_bytes=4_130_000, kv_bytes=3_145_728, compute_bytes=5_800_000)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncGenerator[Worker]:
    """One that was ordered and not started yet."""
    order = WorkerOrder("w1", "key", "builtin:storyteller", "m.gguf", "cpu", "cpu", ("cpu", "0"), 0)
    hub = NarrationHub(has_parent=False)
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        around = Surroundings(Home(tmp_path), Clocks(), hub, client, "http://127.0.0.1:1", "node-1", lambda _: None)
        yield Worker(order, around)


def _beat(memory: MemoryParts | None, state: WorkerState = WorkerState.LOADING) -> WorkerHeartbeat:
    return WorkerHeartbeat(worker_id="w1", state=state, memory=memory)


async def test_a_heartbeat_tells_the_memory_by_part(worker: Worker) -> None:
    assert worker.record().memory is None
    await worker.heartbeat(_beat(MEMORY))

    assert worker.record().memory == MEMORY


async def test_a_heartbeat_that_says_nothing_of_it_takes_nothing_back(worker: Worker) -> None:
    await worker.heartbeat(_beat(MEMORY, WorkerState.IDLE))
    await worker.heartbeat(_beat(None))

    assert worker.record().memory == MEMORY


async def test_the_ready_call_tells_it_before_anybody_hears_that_the_worker_is_ready(worker: Worker) -> None:
    with anyio.fail_after(5):
        await worker.ready(0, MEMORY)

    assert worker.record().memory == MEMORY
    assert worker.state is WorkerState.STARTING, "it has no process that could be asked"


# the memory of its device


@asynccontextmanager
async def _process(tmp_path: Path, runs_on: str, device_free: DeviceFree | None) -> AsyncGenerator[WorkerProcess]:
    order = WorkerOrder("w1", "key", "m", "m.gguf", "cuda", "gpu1", (runs_on, f"{runs_on}:1"), 0)
    hub = NarrationHub(has_parent=False)
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        side = HiveSide(Home(tmp_path), Clocks(), hub, client, "http://127.0.0.1:1", "n", device_free_bytes=device_free)
        yield WorkerProcess(order, 0, side, lambda: None)


async def _seven(device: str) -> int:
    return {"gpu1": 7}[device]


async def _not_telling(device: str) -> int:
    raise BackendUnavailableError(f"{device} does not tell")


async def _hanging(_: str) -> int:
    await anyio.sleep_forever()
    return 0


@pytest.mark.parametrize(
    ("runs_on", "device_free", "expected"),
    [
        pytest.param("cuda", _seven, 7, id="a graphics device, by its id"),
        pytest.param("cpu", _seven, None, id="declared, and computed by the processor"),
        pytest.param("cuda", _not_telling, None, id="a driver that fails"),
        pytest.param("cuda", _hanging, None, id="a driver that hangs"),
        pytest.param("cuda", None, None, id="nobody can tell"),
    ],
)
async def test_a_stop_waits_for_no_driver(
    tmp_path: Path, runs_on: str, device_free: DeviceFree | None, expected: int | None
) -> None:
    async with _process(tmp_path, runs_on, device_free) as process:
        with anyio.fail_after(10):
            assert await process._device_free_bytes() == expected


async def test_the_devices_memory_is_told_beside_the_machines() -> None:
    free = iter([1_000_000_000, 9_000_000_000])
    said: list[Narration] = []

    async def device_free() -> int | None:
        return next(free)

    before = await look_before("w1", os.getpid(), device_free)
    report = await proof(before, Clocks(memory_back_s=0), Narrator("hive", said.append), device_free)

    assert (report.facts.device_free_before_bytes, report.facts.device_free_after_bytes) == (10**9, 9 * 10**9)
    assert said[0].details is not None
    assert said[0].details["device_free_after_bytes"] == 9 * 10**9
    assert "on its device 1.0 GB → 9.0 GB" in said[0].human
