"""A worker that crashes and is started again by its hive, as the queen sees it."""

from typing import Any

import anyio
import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import ScriptedNode, ScriptedWorker

SEGV = {"code": "WORKER_CRASHED", "message": "the worker died while busy (killed by SIGSEGV)"}
OOM = {"code": "INSUFFICIENT_MEMORY", "message": "the kernel ended it", "hint": "Choose a smaller model."}


async def _running(queen: LiveQueen, node: ScriptedNode) -> tuple[str, ScriptedWorker]:
    node.script.tokens, node.script.pause_s = 100_000, 0.02
    task = await queen.submit()
    await queen.until(task, "running")
    await anyio.sleep(0.2)
    return task, node.worker


@pytest.mark.parametrize("back_after_s", [0.0, 3.0], ids=["at once", "after a while"])
async def test_an_answer_ends_with_its_process_although_the_worker_lives_on(
    queen: LiveQueen, node: ScriptedNode, back_after_s: float
) -> None:
    task, worker = await _running(queen, node)
    with anyio.fail_after(3):
        node.crash(worker, SEGV, back_after_s=back_after_s)
        last = await queen.last(task)

    assert last["code"] == "WORKER_CRASHED"
    assert "SIGSEGV" in last["message"]
    assert last["details"]["tokens_sent"] > 0
    assert f"after {last['details']['tokens_sent']} tokens" in last["message"]
    assert last["retryable"]


async def test_the_next_step_is_that_of_the_cause(queen: LiveQueen, node: ScriptedNode) -> None:
    task, worker = await _running(queen, node)

    node.kill(worker, OOM)

    last = await queen.last(task)
    assert (last["code"], last["hint"]) == ("WORKER_CRASHED", OOM["hint"])


async def test_a_task_that_comes_meanwhile_waits_for_the_restart(queen: LiveQueen, node: ScriptedNode) -> None:
    task, worker = await _running(queen, node)
    node.script.tokens = 3
    node.crash(worker, SEGV, back_after_s=1.0)

    events = await queen.events(await queen.submit())

    assert events[-1]["type"] == "end"
    assert any("is coming up" in str(event.get("reason", "")) for event in events if event["type"] == "queued")
    assert (await queen.last(task))["code"] == "WORKER_CRASHED"
    assert node.spawned == 1, "sooner there than in a new worker"
    assert [view["id"] for view in await queen.workers()] == [worker.id]
    await queen.is_at_rest()


async def test_a_task_that_waited_gets_a_new_worker_if_the_restart_fails(queen: LiveQueen, node: ScriptedNode) -> None:
    _, worker = await _running(queen, node)
    node.script.tokens = 3
    node.crash(worker, SEGV, back_after_s=60)
    waiting = await queen.submit()
    await anyio.sleep(0.3)

    node.kill(worker, SEGV)

    assert (await queen.last(waiting))["type"] == "end"
    assert node.spawned == 2


async def test_the_queens_record_of_a_dead_process_is_not_revived_by_its_late_ready_call(
    queen: LiveQueen, node: ScriptedNode
) -> None:
    task, worker = await _running(queen, node)
    node.crash(worker, SEGV, back_after_s=60)
    assert (await queen.last(task))["code"] == "WORKER_CRASHED"
    with anyio.fail_after(5):
        while (await queen.workers())[0]["state"] != "starting":  # noqa: ASYNC110 - only she knows
            await anyio.sleep(0.02)

    async def told(restart_count: int) -> tuple[str, str]:
        late: dict[str, Any] = {"worker_id": worker.id, "url": "http://127.0.0.1:9", "model_ref": "m", "backend": "cpu"}
        late |= {"device": "cpu", "restart_count": restart_count}
        node.script.beating = False
        answer = await queen.client.post("/v1/orchestrator/worker-ready", json=late)
        return answer.json()["status"], (await queen.workers())[0]["state"]

    assert await told(0) == ("unknown", "starting")
    assert await told(2) == ("unknown", "starting")
    assert await told(1) == ("ok", "idle")
    node.script.beating = True
