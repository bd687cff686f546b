"""Many streams over HTTP: none stalls, ends or garbles another, whatever happens to it."""

import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from tests.support.threads import busiest_thread, stopped_thread
from tests.support.worker import STORYTELLER, Answer, RunningWorker, environment, worker_process

from rbee_shared.programs import program_argv
from rbee_shared.sse import Frame, FrameSplitter

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

SUBJECTS = ["a fox", "a bear", "the sea", "a bee", "a lost key", "a robot", "the moon", "a garden"]


def story(subject: str) -> dict[str, Any]:
    return {"prompt": f"write a short story about {subject}", "temperature": 0, "max_tokens": 200}


async def tell_all(worker: RunningWorker, bodies: dict[str, dict[str, Any]]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}

    async def one(name: str) -> None:
        answers[name] = await worker.execute(**bodies[name])

    async with anyio.create_task_group() as group:
        for name in bodies:
            group.start_soon(one, name)
    return answers


async def kv_cells_used(worker: RunningWorker) -> int:
    return int((await worker.health())["kv_cells_used"])


async def test_eight_streams_and_one_too_many(tmp_path: Path) -> None:
    async with worker_process(tmp_path, "--slots", "8") as worker:
        await worker.until_ready()
        alone = {subject: (await worker.execute(**story(subject))).text for subject in SUBJECTS}
        together = await tell_all(worker, {subject: story(subject) for subject in SUBJECTS})
        assert {subject: answer.text for subject, answer in together.items()} == alone

        async def ask(subject: str) -> None:
            await worker.execute(**story(subject))

        refusals = 0
        for _ in range(5):
            async with anyio.create_task_group() as group:
                for subject in SUBJECTS:
                    group.start_soon(ask, subject)
                await anyio.sleep(0.02)
                refused = await worker.client.post("/execute", json=story("one too many"))
                if refused.status_code == 429:
                    refusals += 1
                    assert refused.json()["error"]["code"] == "ALL_SLOTS_BUSY"
                    assert int(refused.headers["Retry-After"]) >= 1
            await worker.until_idle()
    assert refusals, "eight stories take longer than a request"


async def test_cancelling_and_hanging_up_leave_the_others_alone(tmp_path: Path) -> None:
    async with worker_process(tmp_path, "--slots", "8") as worker:
        await worker.until_ready()
        alone = {subject: (await worker.execute(**story(subject))).text for subject in SUBJECTS}
        others = {subject: story(subject) for subject in SUBJECTS[:6]}

        async def cancelled() -> None:
            body = {"job_id": "victim", **story("the moon"), "ignore_eos": True, "max_tokens": 1500}
            async with worker.client.stream("POST", "/execute", json=body) as stream:
                splitter = FrameSplitter()
                frames: list[Frame] = []
                async for chunk in stream.aiter_bytes():
                    if not frames:
                        assert (await worker.client.post("/cancel", json={"job_id": "victim"})).status_code == 202
                    frames += splitter.feed(chunk)
            assert frames[-2].json()["stop_reason"] == "CANCELLED"

        async def hung_up() -> None:
            body = {**story("a garden"), "ignore_eos": True, "max_tokens": 1500}
            async with worker.client.stream("POST", "/execute", json=body) as stream:
                chunks = stream.aiter_bytes()
                await anext(chunks)

        for _ in range(10):
            async with anyio.create_task_group() as group:
                group.start_soon(cancelled)
                group.start_soon(hung_up)
                answers = await tell_all(worker, others)
            assert {subject: answer.text for subject, answer in answers.items()} == {s: alone[s] for s in others}
            for answer in answers.values():
                assert [token["i"] for token in answer.of("token")] == list(range(len(answer.of("token"))))
        await worker.until_idle()


async def test_what_a_cancelled_answer_held_is_free_at_once(endless_worker: RunningWorker) -> None:
    before = await kv_cells_used(endless_worker)
    body = {"job_id": "long", "prompt": "x" * 3000, "max_tokens": 20_000}
    async with endless_worker.client.stream("POST", "/execute", json=body) as stream:
        chunks = stream.aiter_bytes()
        with anyio.fail_after(20):
            while await kv_cells_used(endless_worker) < before + 3000:  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.01)
        await anext(chunks)
        await endless_worker.client.post("/cancel", json={"job_id": "long"})
        with anyio.fail_after(5):
            async for _ in chunks:
                pass
        assert await kv_cells_used(endless_worker) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="stopping one thread of a process needs Linux's ptrace")
async def test_an_engine_that_stands_still_is_an_error_of_its_answers_alone(tmp_path: Path, endless: Path) -> None:
    env = {"RBEE_CLOCK_ENGINE_STALL_S": "1"}
    async with worker_process(tmp_path, "--n-ctx", "32768", model=endless, env=env) as worker:
        await worker.until_ready()
        body = {"prompt": "x", "max_tokens": 30_000}
        async with worker.client.stream("POST", "/execute", json=body) as stream:
            chunks = stream.aiter_bytes()
            await anext(chunks)
            engine = busiest_thread(worker.child.pid)
            for _ in range(50):  # it must not be stopped while it holds the interpreter
                with stopped_thread(engine):
                    if await _answers(worker):
                        frames = await _rest(chunks)
                        assert (await worker.health())["status"] == "healthy", "the event loop goes on"
                        break
                    await anyio.lowlevel.checkpoint()
            else:
                pytest.fail("the engine holds the interpreter whenever it is looked at")
        await worker.until_idle()
        after = await worker.execute(prompt="x", max_tokens=5)

    assert [frame.event for frame in frames][-2:] == ["error", "message"]
    assert frames[-2].json()["code"] == "INFERENCE_STALLED"
    assert after.end["tokens_out"] == 5, "it goes on when it is let go"


async def _answers(worker: RunningWorker) -> bool:
    with anyio.move_on_after(0.3):
        await worker.health()
        return True
    return False


async def _rest(chunks: Any) -> list[Frame]:
    splitter = FrameSplitter()
    with anyio.fail_after(10):
        return [frame async for chunk in chunks for frame in splitter.feed(chunk)]


async def test_by_hand_a_line_may_be_allowed(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    flags = ["--local-mode", "--port", port, "--slots", "1", "--queue", "2"]
    argv = [*program_argv("llm-worker-rbee"), "--model", str(STORYTELLER), *flags]
    async with await anyio.open_process(argv, env=environment(tmp_path), stdin=-3, stdout=-3, stderr=-3) as process:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=30) as client:
            await _until_ready(client)
            long = {**story("a fox"), "ignore_eos": True, "max_tokens": 1000}
            found: list[httpx2.Response] = []

            async def ask() -> None:
                found.append(await client.post("/execute", json=long))

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ask)
            metrics = (await client.get("/metrics")).text
        process.terminate()
        with anyio.fail_after(10):
            await process.wait()

    assert sorted(response.status_code for response in found) == [200, 200, 200, 429, 429]
    complete = [response.text for response in found if response.status_code == 200]
    assert all(text.endswith("data: [DONE]\n\n") for text in complete)
    assert sum("waiting for a slot: all 1 are busy" in text for text in complete) == 2
    assert "rbee_worker_queue_wait_seconds_count 3.0" in metrics


async def _until_ready(client: httpx2.AsyncClient) -> None:
    with anyio.fail_after(15):
        while True:
            try:
                if (await client.get("/v1/ready")).status_code == 204:
                    return
            except httpx2.TransportError:
                pass
            await anyio.sleep(0.02)
