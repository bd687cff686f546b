"""The worker's HTTP contract: statuses, bodies, refusals, keys, seeds' requests verbatim."""

import json
from pathlib import Path

import anyio
import httpx2
import pytest
from tests.support.worker import RunningWorker, worker_process

from rbee_shared.sse import Frame, FrameSplitter

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")


async def test_health_needs_no_key(worker: RunningWorker) -> None:
    async with httpx2.AsyncClient(base_url=worker.url, trust_env=False, verify=False) as stranger:
        health = (await stranger.get("/health")).json()

    assert health["status"] == "healthy"
    assert health["program"] == "llm-worker-rbee"
    assert health["instance"] == worker.child.listening.instance if worker.child.listening else False
    assert (health["slots_total"], health["slots_busy"], health["vram_bytes"]) == (4, 0, 0)
    assert 10_000_000 < health["rss_bytes"] < 1_000_000_000
    assert health["model_ref"].startswith("file:/")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/execute"),
        ("POST", "/infer"),
        ("POST", "/cancel"),
        ("GET", "/v1/ready"),
        ("GET", "/v1/loading/progress"),
        ("GET", "/metrics"),
        ("POST", "/shutdown"),
        ("POST", "/v1/shutdown"),
    ],
)
async def test_every_other_route_wants_the_key(worker: RunningWorker, method: str, path: str) -> None:
    async with httpx2.AsyncClient(base_url=worker.url, trust_env=False, verify=False) as stranger:
        without = await stranger.request(method, path, content=b'{"prompt":"x"}')
        wrong = await stranger.request(method, path, headers={"Authorization": "Bearer wrong"})

    assert (without.status_code, without.json()["error"]["code"]) == (401, "MISSING_API_KEY")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "INVALID_API_KEY")


async def test_ready_and_progress_of_a_loaded_worker(worker: RunningWorker) -> None:
    ready = await worker.client.get("/v1/ready")
    progress = await worker.client.get("/v1/loading/progress")
    frames = FrameSplitter().feed(progress.content)

    assert (ready.status_code, ready.content) == (204, b"")
    assert [frame.event for frame in frames] == ["progress", "end", "message"]
    assert frames[0].json()["done"] == frames[0].json()["total"] > 1_000_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/execute", '{"job_id":"test-1","prompt":"Hello","max_tokens":20}', id="seed 002"),
        pytest.param("/infer", '{"prompt": "hello", "stream": true}', id="seed 004"),
        pytest.param("/execute", '{"prompt":"hello"}', id="DESIGN"),
    ],
)
async def test_bodies_of_the_seeds_under_curl_s_content_type(worker: RunningWorker, path: str, body: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await worker.client.post(path, content=body, headers=headers)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert [frame.event for frame in FrameSplitter().feed(response.content)][-2:] == ["end", "message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param('{"prompt":"x","temperature":NaN}', ["temperature"], id="NaN"),
        pytest.param('{"prompt":"x","max_tokens":0}', ["max_tokens"], id="no tokens"),
        pytest.param('{"prompt":"x","max_tokens":-1}', ["max_tokens"], id="fewer than none"),
        pytest.param('{"prompt":"x","max_tokens":1000000000}', ["max_tokens"], id="10^9"),
        pytest.param('{"prompt":"x","top_p":2,"top_k":-1}', ["top_p", "top_k"], id="all faults at once"),
        pytest.param('{"prompt":"x","seed":4294967295}', ["seed"], id="llama.cpp's own word for random"),
        pytest.param('{"prompt":"x","job_id":"a b"}', ["job_id"], id="unsafe id"),
        pytest.param('{"prompt":""}', ["prompt"], id="empty prompt"),
        pytest.param("{}", ["(body)"], id="no prompt"),
        pytest.param('{"prompt":', [""], id="no JSON"),
        pytest.param("[]", ["(body)"], id="no object"),
        pytest.param('{"prompt":"x","stop":[""]}', ["stop.0"], id="empty stop string"),
    ],
)
async def test_bad_values_are_named_and_refused(worker: RunningWorker, body: str, fields: list[str]) -> None:
    response = await worker.client.post("/execute", content=body)
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (400, "INVALID_REQUEST")
    assert [fault["field"] for fault in error["details"]["errors"]] == fields
    assert error["correlation_id"] == response.headers["X-Correlation-Id"]
    assert (await worker.health())["slots_busy"] == 0


@pytest.mark.parametrize("field", ["priority", "deadline_ms", "session_id"])
async def test_what_is_not_built_is_named_and_refused(worker: RunningWorker, field: str) -> None:
    response = await worker.client.post("/execute", json={"prompt": "x", field: "y"})

    assert (response.status_code, response.json()["error"]["code"]) == (400, "NOT_SUPPORTED")
    assert field in response.json()["error"]["message"]


async def test_a_body_of_10_mb(worker: RunningWorker) -> None:
    response = await worker.client.post("/execute", content=b'{"prompt":"' + b"x" * 10_000_000 + b'"}')

    assert (response.status_code, response.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_prompt_with_everything_in_it(worker: RunningWorker) -> None:
    answer = await worker.execute(prompt="\0 😀 \u2028 <|end|> \x1b[31m", max_tokens=5)

    assert answer.end["tokens_out"] <= 5


async def test_half_a_surrogate_pair(worker: RunningWorker) -> None:
    response = await worker.client.post("/execute", content=b'{"prompt":"\\ud83d","max_tokens":3}')

    assert response.status_code in {200, 400}
    assert (await worker.execute(prompt="hello", max_tokens=3)).end["tokens_out"] == 3


async def test_metrics_count(worker: RunningWorker) -> None:
    def read(text: str) -> dict[str, float]:
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before = read((await worker.client.get("/metrics")).text)
    await worker.execute(prompt="hello", max_tokens=3)
    after = read((await worker.client.get("/metrics")).text)
    grown = {name: after[name] - before[name] for name in after}

    assert grown["rbee_worker_requests_total"] == 1
    assert grown["rbee_worker_tokens_out_total"] == 3
    assert grown["rbee_worker_ttft_seconds_count"] == 1
    assert grown['rbee_worker_answers_total{stop_reason="MAX_TOKENS"}'] == 1
    assert after["rbee_worker_slots"] == 4


async def test_unknown_routes_and_methods(worker: RunningWorker) -> None:
    unknown, wrong = await worker.client.get("/nothing"), await worker.client.get("/execute")

    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")


async def test_a_request_beyond_the_slots_is_refused_at_once(endless_worker: RunningWorker) -> None:
    client = endless_worker.client
    body = {"job_id": "j1", "prompt": "x", "max_tokens": 32_000}
    async with client.stream("POST", "/execute", json=body) as first:
        chunks = first.aiter_bytes()  # named: a dropped generator is closed, and closing it hangs up
        await anext(chunks)
        began_s = anyio.current_time()
        busy = await client.post("/execute", json={"job_id": "j2", "prompt": "x"})
        same = await client.post("/execute", json={"job_id": "j1", "prompt": "x"})
        health = await endless_worker.health()

        assert anyio.current_time() - began_s < 1
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "ALL_SLOTS_BUSY")
        assert int(busy.headers["Retry-After"]) >= 1
        assert (same.status_code, same.json()["error"]["code"]) == (409, "ALREADY_EXISTS")
        assert (health["slots_busy"], health["status"]) == (1, "healthy")
    await endless_worker.until_idle()


async def test_cancel_ends_the_stream_at_once(endless_worker: RunningWorker) -> None:
    client = endless_worker.client
    splitter = FrameSplitter()
    frames: list[Frame] = []
    cancelled_at_s = anyio.current_time()
    async with client.stream("POST", "/execute", json={"job_id": "j1", "prompt": "x", "max_tokens": 32_000}) as stream:
        async for chunk in stream.aiter_bytes():
            if not frames:
                answer = await client.post("/cancel", content='{"job_id": "j1"}')
                cancelled_at_s = anyio.current_time()
                assert answer.status_code == 202
            frames += splitter.feed(chunk)
    end = frames[-2].json()

    assert anyio.current_time() - cancelled_at_s < 1
    assert (end["type"], end["stop_reason"]) == ("end", "CANCELLED")
    assert end["tokens_out"] < 32_000
    assert sum(len(frame.json()["ids"]) for frame in frames if frame.event == "token") == end["tokens_out"]
    assert (await endless_worker.health())["slots_busy"] == 0
    assert (await client.post("/cancel", json={"job_id": "j1"})).status_code == 404
    assert (await client.post("/execute", json={"job_id": "j1", "prompt": "x", "max_tokens": 3})).status_code == 200


async def test_hanging_up_frees_the_slot_at_once(endless_worker: RunningWorker) -> None:
    for _ in range(5):
        async with endless_worker.client.stream(
            "POST", "/execute", json={"prompt": "x", "max_tokens": 32_000}
        ) as stream:
            chunks = stream.aiter_bytes()
            await anext(chunks)
        began_s = anyio.current_time()
        await endless_worker.until_idle()
        assert anyio.current_time() - began_s < 0.5
    text = (await endless_worker.client.get("/metrics")).text
    assert 'stop_reason="CANCELLED"} 5' in text


async def test_hanging_up_before_the_answer_begins_frees_the_slot(endless_worker: RunningWorker) -> None:
    host, port = endless_worker.url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "x" * 20_000, "max_tokens": 32_000}).encode()
    head = f"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    key = endless_worker.client.headers["Authorization"]
    for _ in range(10):
        async with await anyio.connect_tcp(host, int(port)) as connection:
            await connection.send(f"{head}Authorization: {key}\r\n\r\n".encode() + body)

    # nothing tells when the worker has read them all: "idle" may still be followed by one of them
    short = {"prompt": "x", "max_tokens": 3}
    with anyio.fail_after(5):
        while (response := await endless_worker.client.post("/execute", json=short)).status_code == 429:
            await endless_worker.until_idle()
    assert response.status_code == 200
    assert b'"tokens_out":3' in response.content
    await endless_worker.until_idle()


async def test_an_idle_stream_is_kept_open_by_comments(tmp_path: Path, endless: Path) -> None:
    # frames come faster than the pings, except while a long prompt is decoded
    env = {"RBEE_CLOCK_SSE_PING_S": "0.01"}
    async with worker_process(tmp_path, "--n-ctx", "32768", model=endless, env=env) as worker:
        await worker.until_ready()
        response = await worker.client.post("/execute", json={"prompt": "x" * 6000, "max_tokens": 1})

    assert b": ping\n\n" in response.content
    assert response.content.endswith(b"data: [DONE]\n\n")
