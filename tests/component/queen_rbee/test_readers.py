"""Applications come and go in every state of a task: what they leave behind is nothing."""

import json
import os
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx2
import psutil
import pytest
from tests.support.cluster import frames_of
from tests.support.queen import LiveQueen
from tests.support.scripted_node import MODEL, Script, ScriptedNode

CYCLES = int(os.environ.get("RBEE_TEST_RACES", "1000"))
ENDLESS = 100_000


@asynccontextmanager
async def streaming(queen: LiveQueen, **fields: object) -> AsyncGenerator[httpx2.Response]:
    """A submitter that reads along; hangs up on leaving."""
    body = {"prompt": "hi", "model": MODEL, "stream": True, **fields}
    async with queen.client.stream("POST", "/v2/tasks", json=body) as response:
        yield response


def slow(script: Script) -> None:
    script.tokens, script.pause_s = ENDLESS, 0.02


async def hang_up_after(queen: LiveQueen, data: bytes, wait_s: float) -> None:
    """Write a request as bytes and close the connection without reading."""
    port = int(queen.url.rsplit(":", 1)[1])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(data)
        await anyio.sleep(wait_s)


def request(fields: dict[str, object]) -> bytes:
    body = json.dumps({"prompt": "hi", "model": MODEL, **fields}).encode()
    return b"POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("wait_s", [0.0, 0.001, 0.01, 0.3])
@pytest.mark.parametrize("stream", [True, False])
async def test_who_waits_for_the_answer_and_hangs_up_cancels(
    queen: LiveQueen, node: ScriptedNode, wait_s: float, stream: bool
) -> None:
    slow(node.script)
    for _ in range(3):
        await hang_up_after(queen, request({"stream": stream}), wait_s)

    await queen.is_at_rest()

    tasks = (await queen.client.get("/v2/tasks")).json()["tasks"]
    assert {task["status"] for task in tasks} <= {"cancelled"}
    node.script.tokens = 1
    assert (await queen.answer())["type"] == "end"


async def test_another_reader_keeps_an_attached_task(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.tokens, node.script.pause_s = 50, 0.02
    async with anyio.create_task_group() as group, streaming(queen) as response:
        task = response.headers["x-rbee-task-id"]
        group.start_soon(queen.last, task)
        await queen.until(task, "running")
        await anyio.sleep(0.1)
        await response.aclose()

    assert (await queen.view(task))["status"] == "completed"


async def test_a_passing_reader_does_not_end_a_task_that_somebody_waits_for(
    queen: LiveQueen, node: ScriptedNode
) -> None:
    node.script.tokens, node.script.pause_s = 50, 0.02
    answers = []

    async def wait() -> None:
        answers.append(await queen.client.post("/v2/tasks", json={"prompt": "hi", "model": MODEL, "stream": False}))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        task = ""
        while not task:
            await anyio.sleep(0.02)
            tasks = (await queen.client.get("/v2/tasks")).json()["tasks"]
            task = tasks[0]["task_id"] if tasks and tasks[0]["status"] == "running" else ""
        async with queen.client.stream("GET", f"/v2/tasks/{task}/events") as response:
            await anext(response.aiter_bytes())

    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["text"].startswith("t0 t1 ")
    assert answers[0].json()["tokens_out"] == 50


async def test_256_readers_and_one_who_does_not_read(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.tokens, node.script.pause_s = 40, 0.02
    task = await queen.submit()
    answers: list[str] = []

    async def read() -> None:
        answers.append((await queen.client.get(f"/v2/tasks/{task}/events")).text)

    line = f"GET /v2/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with anyio.create_task_group() as group:
        group.start_soon(hang_up_after, queen, line, 5)
        for _ in range(256):
            group.start_soon(read)

    assert len(answers) == 256
    tokens = {tuple(event["i"] for event in frames_of(text) if event.get("type") == "token") for text in answers}
    assert tokens == {tuple(range(40))}


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("0", 200, None),
        ("", 200, None),
        ("-1", 400, "INVALID_REQUEST"),
        ("x", 400, "INVALID_REQUEST"),
        ("٣", 400, "INVALID_REQUEST"),
        ("9" * 5000, 400, "INVALID_REQUEST"),
        ("999999", 410, "EVENTS_GONE"),
    ],
)
async def test_last_event_id(queen: LiveQueen, node: ScriptedNode, header: str, status: int, code: str | None) -> None:
    task = await queen.submit()
    all_events = await queen.events(task)

    headers = {"Last-Event-ID": header.encode()}
    answer = await queen.client.get(f"/v2/tasks/{task}/events", headers=headers)  # type: ignore[arg-type]

    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["error"]["code"] == code
    else:
        assert len(frames_of(answer.text)) == len(all_events)
    for after in range(len(all_events) + 1):
        assert len(await queen.events(task, after)) == len(all_events) - after


async def test_cancel_in_every_state(queen: LiveQueen, node: ScriptedNode) -> None:
    slow(node.script)
    node.script.ready_after_s, node.script.spawn_s = 0.5, 0.3
    ordering, queued = await queen.submit(), await queen.submit()
    await anyio.sleep(0.15)
    for task in (queued, ordering):
        await queen.client.delete(f"/v2/tasks/{task}")
        assert (await queen.last(task))["code"] == "CANCELLED"
    assert node.spawned == 1

    loading = await queen.submit()
    await anyio.sleep(0.05)
    await queen.client.post(f"/v2/tasks/{loading}/cancel")
    assert (await queen.last(loading))["code"] == "CANCELLED"

    running = await queen.submit()
    await queen.until(running, "running")
    for _ in range(3):
        view = (await queen.client.delete(f"/v2/tasks/{running}")).json()
        assert view["status"] == "cancelled"
    assert (await queen.last(running))["stop_reason"] == "CANCELLED"

    await queen.client.delete(f"/v2/tasks/{running}")
    await queen.is_at_rest()
    assert node.spawned == 1, "the worker that was ordered for a cancelled task serves the next"


async def test_a_worker_that_ignores_cancel_is_hung_up_on(queen: LiveQueen, node: ScriptedNode) -> None:
    slow(node.script)
    task = await queen.submit()
    await queen.until(task, "running")
    node.worker.jobs[task] = anyio.Event()  # the one that is set is not the one it looks at

    await queen.client.delete(f"/v2/tasks/{task}")

    assert (await queen.last(task))["code"] == "CANCELLED"
    await queen.is_at_rest()
    with anyio.fail_after(5):
        while node.worker.jobs:  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.02)


@pytest.mark.parametrize("script", [Script(tokens=20, pause_s=0.005, slots=4)])
@pytest.mark.timeout(300)
async def test_races_leave_nothing(queen: LiveQueen, node: ScriptedNode) -> None:
    assert (await queen.answer())["type"] == "end"
    process = psutil.Process(queen.running.pid)
    limiter, chance = anyio.CapacityLimiter(16), random.Random(7)

    async def cycle(way: str, wait_s: float) -> None:
        async with limiter:
            if way == "cancel":
                answer = await queen.client.post("/v2/tasks", json={"prompt": "hi", "model": MODEL})
                if answer.status_code == 202:
                    await anyio.sleep(wait_s)
                    await queen.client.delete(f"/v2/tasks/{answer.json()['task_id']}")
            elif way == "leave":
                with anyio.move_on_after(wait_s):
                    async with streaming(queen) as response:
                        async for _ in response.aiter_bytes():
                            pass
            else:
                await hang_up_after(queen, request({"stream": way == "hang up"}), wait_s)

    async def all_cycles(count: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                way = chance.choice(["cancel", "leave", "hang up", "wait and hang up"])
                group.start_soon(cycle, way, chance.choice([0, 0.001, 0.01, 0.05, 0.2]))

    await all_cycles(50)
    await queen.is_at_rest()
    await anyio.sleep(0.5)
    before = process.num_fds()
    await all_cycles(CYCLES)

    await queen.is_at_rest()
    assert node.worker.most_at_once <= node.script.slots
    assert (await queen.answer())["type"] == "end"
    await anyio.sleep(0.5)
    assert process.num_fds() <= before + 20, "connections that are kept for reuse, no more"
    health = (await queen.client.get("/health")).json()
    assert health["queue_depth"] == 0
    assert node.spawned == 1
