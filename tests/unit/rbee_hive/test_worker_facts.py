"""What the hive takes from a worker's own word, and shows in its record."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import httpx2
import pytest

from rbee_hive.workers.lifecycle import Surroundings, Worker
from rbee_hive.workers.order import WorkerOrder
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat, WorkerState
from rbee_shared.narration_hub import NarrationHub
from rbee_shared.paths import Home

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
