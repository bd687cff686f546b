"""A queen while the stream of an answer is broken off: what she is told meanwhile counts at once."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import ScriptedNode, ScriptedWorker, started

from rbee_shared.contracts.events import token_frame

TOKENS = 3


async def breaks_off(worker: ScriptedWorker, job: dict[str, Any]) -> AsyncIterator[bytes]:
    """The connection breaks after some tokens, and from then on nobody reaches the worker, which lives."""
    yield started(worker, job)
    for number in range(TOKENS):
        yield token_frame("x ", number, [number])
    worker.gone.set()
    raise ConnectionResetError


@pytest.fixture
async def interrupted(queen: LiveQueen, node: ScriptedNode) -> str:
    """The id of a task that waits for its worker."""
    node.script.answer = breaks_off
    task = await queen.submit()
    await queen.until(task, "running")
    await anyio.sleep(0.5)
    assert (await queen.view(task))["status"] == "running"
    return task


async def test_a_cancel_ends_the_wait(queen: LiveQueen, node: ScriptedNode, interrupted: str) -> None:
    with anyio.fail_after(10):
        await queen.client.delete(f"/v2/tasks/{interrupted}")
        events = await queen.events(interrupted)

    assert [event["i"] for event in events if event["type"] == "token"] == list(range(TOKENS))
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "CANCELLED")
    assert any(f"broke off after {TOKENS} tokens" in event.get("human", "") for event in events)
    assert (await queen.view(interrupted))["status"] == "cancelled"
    assert node.spawned == 1


async def test_the_reader_is_not_left_in_silence(queen: LiveQueen, interrupted: str) -> None:
    await anyio.sleep(2)
    await queen.client.delete(f"/v2/tasks/{interrupted}")
    said = [event["human"] for event in await queen.events(interrupted) if event["type"] == "narration"]

    assert any("still waiting for the connection to localhost" in line for line in said)


async def test_a_queen_who_is_told_to_end_does_not_wait_on(queen: LiveQueen, interrupted: str) -> None:
    lasts = []

    async def follow() -> None:
        lasts.append(await queen.last(interrupted))

    with anyio.fail_after(22):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await anyio.sleep(0.2)
            queen.running.process.terminate()
            await anyio.to_thread.run_sync(queen.running.wait)

    assert [last["code"] for last in lasts] == ["SHUTTING_DOWN"]


async def test_a_worker_that_its_hive_calls_dead_is_not_waited_for(
    queen: LiveQueen, node: ScriptedNode, interrupted: str
) -> None:
    (worker,) = node.workers.values()
    with anyio.fail_after(10):
        node.kill(worker, {"code": "WORKER_CRASHED", "message": "worker died (killed by SIGSEGV)"})
        last = await queen.last(interrupted)

    assert last["code"] == "WORKER_CRASHED"
    assert f"SIGSEGV) after {TOKENS} tokens" in last["message"]
    assert last["details"]["tokens_sent"] == TOKENS
