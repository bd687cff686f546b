"""Whatever a hive or a worker does wrong: one terminal event, the right code, and the next task is served."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import (
    Answer,
    Script,
    ScriptedNode,
    ScriptedWorker,
    broken,
    ended,
    raw,
    seen,
    started,
    whole,
)

from rbee_shared import sse
from rbee_shared.contracts.events import token_frame

ONE = token_frame("one ", 0, [1])
HUGE = b'event: end\ndata: {"x":"' + b"x" * 10_000_000 + b'"}\n\n'
NAN = b'event: error\ndata: {"code":"WORKER_CRASHED","message":"m","details":{"x":NaN}}\n\n'
DEEP = b'event: error\ndata: {"code":"INFERENCE_STALLED","message":"m","details":{"x":%b%b}}\n\n' % (
    b"[" * 600,
    b"]" * 600,
)
BUSY = sse.encode("error", {"code": "ALL_SLOTS_BUSY", "message": "busy"})


async def resets(worker: ScriptedWorker, job: dict[str, Any]) -> AsyncIterator[bytes]:
    """The connection breaks without its end."""
    yield started(worker, job) + (b"" if seen(job) else ONE)
    await anyio.sleep(0.05)
    raise ConnectionResetError


async def forgetful(worker: ScriptedWorker, job: dict[str, Any]) -> AsyncIterator[bytes]:
    """It takes no notice of what the reader has."""
    yield started(worker, job) + ONE


BAD_STREAMS: dict[str, tuple[Answer, str]] = {
    "closes before the first token": (broken(), "STREAM_TRUNCATED"),
    "closes in mid-answer": (broken(ONE), "STREAM_TRUNCATED"),
    "closes in mid-frame": (broken(ONE, b"event: token\nda"), "STREAM_TRUNCATED"),
    "done without an end": (broken(ONE, sse.DONE), "STREAM_TRUNCATED"),
    "nothing at all": (raw(), "STREAM_TRUNCATED"),
    "no events": (raw(b"<html>hello</html>"), "STREAM_TRUNCATED"),
    "10 MB frame": (broken(ONE, HUGE), "BAD_PEER"),
    "an end that is no JSON": (broken(ONE, b"event: end\ndata: {broken\n\n"), "BAD_PEER"),
    "an end that is no object": (broken(ONE, b"event: end\ndata: [1]\n\n"), "BAD_PEER"),
    "an end of wrong types": (broken(ONE, sse.encode("end", {"tokens_out": "many"})), "BAD_PEER"),
    "a narration that is none": (broken(b"event: narration\ndata: 7\n\n"), "BAD_PEER"),
    "a token before started": (raw(ONE, ended("EOS", 1)), "BAD_PEER"),
    "an end before started": (raw(ended("EOS", 0)), "BAD_PEER"),
    "not a number": (broken(ONE, NAN), "BAD_PEER"),
    "deep details": (broken(ONE, DEEP), "INFERENCE_STALLED"),
    "a token again after a cut": (forgetful, "BAD_PEER"),
    "busy in mid-answer is no refusal": (broken(ONE, BUSY), "ALL_SLOTS_BUSY"),
    "an unknown code": (broken(sse.encode("error", {"code": "NEWER"})), "BAD_PEER"),
    "an error without a code": (broken(sse.encode("error", {})), "BAD_PEER"),
    "resets the connection": (resets, "STREAM_TRUNCATED"),
}


async def test_an_answer_as_it_should_be(queen: LiveQueen, node: ScriptedNode) -> None:
    events = await queen.events(await queen.submit())

    assert [event["t"] for event in events if event["type"] == "token"] == ["t0 ", "t1 ", "t2 "]
    assert events[-1]["type"] == "end"
    assert [int(event["_id"]) for event in events] == list(range(1, len(events) + 1))
    assert node.spawned == 1
    await queen.is_at_rest()


async def test_a_bad_stream_is_one_error_and_the_next_task_is_served(queen: LiveQueen, node: ScriptedNode) -> None:
    for name, (answer, code) in BAD_STREAMS.items():
        node.script.answer = answer
        first, waiting = await queen.submit(), await queen.submit()

        last = await queen.last(first)
        assert (last["type"], last["code"]) == ("error", code), f"{name}: {last}"
        assert last["task_id"] == first
        await queen.last(waiting)

        node.script.answer = whole
        assert (await queen.answer())["type"] == "end", name
        await queen.is_at_rest()
    assert node.spawned == 1, "the worker lives, so it is used again"


async def test_frames_nobody_knows_are_passed_over(queen: LiveQueen, node: ScriptedNode) -> None:
    odd = b': comment\n\n\nevent: sparkle\ndata: {}\n\nid: 7\nevent: token\ndata: {"t":"x"}\n\nnonsense\n\n'
    node.script.answer = broken(odd, ended("EOS", 1))

    task = await queen.submit()

    events = await queen.events(task)
    assert events[-1]["type"] == "end"
    assert "sparkle" not in [event["type"] for event in events if "type" in event]


async def test_a_dead_worker_is_told_from_a_broken_stream(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.tokens, node.script.pause_s = 1000, 0.02
    task = await queen.submit()
    await queen.until(task, "running")

    node.kill(node.worker, {"code": "WORKER_CRASHED", "message": "worker died (killed by SIGSEGV)"})

    last = await queen.last(task)
    assert last["code"] == "WORKER_CRASHED"
    assert "SIGSEGV" in last["message"]
    assert last["retryable"]
    assert last["details"]["tokens_sent"] >= 0
    node.script.tokens, node.script.pause_s = 1, 0.0
    assert (await queen.answer())["type"] == "end"
    assert node.spawned == 2
    await queen.is_at_rest()


async def test_a_worker_busy_for_a_moment_is_asked_again(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.refusals = 4

    assert (await queen.answer())["type"] == "end"
    assert node.worker.executed == 1


async def test_a_worker_that_stays_busy_is_an_error(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.refusals = 10_000

    assert (await queen.answer())["code"] == "ALL_SLOTS_BUSY"
    await queen.is_at_rest()


async def test_a_slow_worker_is_waited_for(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.headers_s = 6.0

    task = await queen.submit()
    events = await queen.events(task)

    assert events[-1]["type"] == "end"
    assert any("still waiting for the first token" in event.get("human", "") for event in events)


@pytest.mark.parametrize(("code", "when"), [("INSUFFICIENT_MEMORY", "ordered"), ("MODEL_INVALID", "loaded")])
async def test_a_failed_load_fails_everybody_who_waited_for_it(
    queen: LiveQueen, node: ScriptedNode, code: str, when: str
) -> None:
    hint = "Make it anew: rbee-hive builds make cpu, or rbee-hive models unpin m"
    error = {"code": code, "message": "no", "hint": hint, "details": {"api_key": "abcdefghijklmnop"}}
    if when == "ordered":
        node.script.spawn_error, node.script.spawn_s = error, 0.2
    else:
        node.script.load_error, node.script.ready_after_s = error, 0.2
    tasks = [await queen.submit() for _ in range(3)]

    lasts = [await queen.last(task) for task in tasks]

    assert [last["code"] for last in lasts] == [code] * 3
    assert "abcdefghijklmnop" not in str(lasts)
    told = "rbee-keeper pool builds make cpu --host localhost, or rbee-hive models unpin m (typed on localhost)"
    assert [last["hint"] for last in lasts] == [f"Make it anew: {told}"] * 3, "in words of who is not at the hive"
    assert node.spawned == 1, "they shared one load"
    node.script.spawn_error = node.script.load_error = None
    assert (await queen.answer())["type"] == "end"
    await queen.is_at_rest()


@pytest.mark.parametrize("clocks", [{"RBEE_CLOCK_SUSPECT_S": "0.5", "RBEE_CLOCK_LOST_S": "30"}])
async def test_a_silent_hive_makes_tasks_wait_and_no_more(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.tokens, node.script.pause_s = 100_000, 0.02
    running, waiting = await queen.submit(), await queen.submit()
    await queen.until(running, "running")

    node.script.beating = False
    await anyio.sleep(1.5)
    await queen.client.delete(f"/v2/tasks/{running}")
    assert (await queen.view(waiting))["status"] == "preparing", "a silent hive gets no new work"
    node.script.tokens, node.script.beating = 1, True

    assert (await queen.last(waiting))["type"] == "end"
    await queen.is_at_rest()


@pytest.mark.parametrize("clocks", [{"RBEE_CLOCK_SUSPECT_S": "0.5", "RBEE_CLOCK_LOST_S": "1"}])
@pytest.mark.parametrize("ready_after_s", [None, 0.0])
async def test_nobody_waits_for_a_hive_that_is_gone(
    queen: LiveQueen, node: ScriptedNode, ready_after_s: float | None
) -> None:
    node.script.ready_after_s = ready_after_s
    node.script.tokens, node.script.pause_s = 100_000, 0.02
    first, waiting = await queen.submit(), await queen.submit()
    await queen.until(first, "preparing" if ready_after_s is None else "running")
    await anyio.sleep(0.2)

    node.script.beating = False

    assert (await queen.last(waiting))["code"] == "NODE_UNREACHABLE"
    if ready_after_s is None:
        last = await queen.last(first)
        assert last["code"] == "WORKER_CRASHED"
        assert "went with its hive" in last["message"]
    else:
        assert (await queen.view(first))["status"] == "running", "its worker answers still"
        await queen.client.delete(f"/v2/tasks/{first}")
    await queen.is_at_rest()


async def test_two_hives_of_one_name_do_not_take_turns(queen: LiveQueen, node: ScriptedNode) -> None:
    assert (await queen.answer())["type"] == "end"
    other = ScriptedNode(queen.url, queen.token, node.group, Script(), url="http://127.0.0.1:9")
    for _ in range(3):
        await other.beat()

    assert [error["code"] for error in other.refused] == ["ALREADY_EXISTS"] * 3
    assert [worker["id"] for worker in await queen.workers()] == [node.worker.id]
    assert (await queen.answer())["type"] == "end"


async def test_a_late_list_does_not_bury_a_new_worker(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.ready_after_s, node.script.spawn_s = 0.3, 0.3
    node.script.beating = False
    stale = node.heartbeat()
    task = await queen.submit()
    with anyio.fail_after(10):
        while not await queen.workers():  # noqa: ASYNC110 - only she knows
            await anyio.sleep(0.01)

    answer = await queen.client.post("/v1/heartbeat", json=stale)

    assert answer.status_code == 200
    node.script.beating = True
    assert (await queen.last(task))["type"] == "end"


async def test_a_heartbeat_of_wrong_types_changes_nothing(queen: LiveQueen, node: ScriptedNode) -> None:
    changes: list[dict[str, Any]] = [{"workers": [{"id": "w"}]}, {"workers": "none"}, {"name": ""}, {"name": "x" * 300}]
    changes += [{"hive_id": None}, {"seq": "first"}, {"narrated": 1.5}]
    for change in changes:
        answer = await queen.client.post("/v1/heartbeat", json={**node.heartbeat(), **change})
        assert answer.status_code == 400, change
        assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert (await queen.answer())["type"] == "end"


async def test_odd_facts_in_a_heartbeat_harm_nobody(queen: LiveQueen, node: ScriptedNode) -> None:
    assert (await queen.answer())["type"] == "end"
    record = node.worker.record()
    strange = [{**record, "id": f"odd-{n}", "model_ref": "m", "last_activity": 1e308} for n in range(1500)]
    strange += [{**record, "id": "urls", "url": "nonsense", "model_ref": "builtin:odd"}]
    strange += [{**record, "id": "slots", "slots_total": -5, "state": "busy"}]
    beat = {**node.heartbeat(), "workers": [*strange, record], "narrated": 10**9}

    answer = await queen.client.post("/v1/heartbeat", json=beat)

    assert answer.status_code == 200, answer.text
    assert (await queen.answer())["type"] == "end"
    assert node.worker.key not in (await queen.client.get("/v2/workers")).text
