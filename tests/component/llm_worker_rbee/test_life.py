"""A worker's life: how it starts, what it reports, what ends it, and how fast it is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import httpx2
import psutil
import pytest
from tests.support.fake_hive import fake_hive
from tests.support.models import truncated_model
from tests.support.processes import alive, wait_gone
from tests.support.worker import KEY, STORYTELLER, environment, worker_failure, worker_process

from rbee_shared.programs import program_argv
from rbee_shared.sse import Frame, FrameSplitter

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

PARENT = """
import sys, time
import anyio
from pathlib import Path
from tests.support.worker import worker_process

async def main():
    flags = ["--n-ctx", "32768"]
    async with worker_process(Path(sys.argv[1]), *flags, model=Path(sys.argv[2])) as worker:
        await worker.until_ready()
        if sys.argv[3] == "idle":
            print(worker.child.pid, flush=True)
            await anyio.sleep_forever()
        async with worker.client.stream("POST", "/execute", json={"prompt": "x", "max_tokens": 32000}) as stream:
            async for _ in stream.aiter_bytes():
                print(worker.child.pid, flush=True)

anyio.run(main)
"""


async def test_the_start_in_words_and_order(tmp_path: Path) -> None:
    async with worker_process(tmp_path) as worker:
        await worker.until_ready()
        assert worker.child.lines_lost == 0, "nothing but records on stdout"
    size = worker.narrated[3].human.removeprefix("model loaded, ")
    assert size.endswith(" MB")
    assert 0.9 <= float(size.removesuffix(" MB")) * 1e6 / STORYTELLER.stat().st_size <= 1.0, "its weights, as measured"

    assert worker.child.returncode == 0
    assert [f"{line.actor}: {line.human}" for line in worker.narrated] == [
        f"llm-worker: HTTP server ready on :{worker.url.rpartition(':')[2]}",
        worker.narrated[1].actor + ": " + worker.narrated[1].human,
        f"model-loader: loading model {STORYTELLER}",
        f"model-loader: model loaded, {size}",
        "llm-worker: reporting ready",
        "llm-worker: shutting down gracefully",
        f"llm-worker: freeing {size}",
        "llm-worker: exiting",
    ]
    assert worker.narrated[1].human.startswith("initialized CPU device ")


async def test_it_takes_little_work_to_be_ready(tmp_path: Path) -> None:
    """In processor time, which others on this machine do not stretch; `scripts/bench` measures the waiting."""
    least_s = float("inf")
    for number in range(3):
        home = tmp_path / str(number)
        home.mkdir()
        async with worker_process(home) as worker:
            await worker.until_ready()
            used = psutil.Process(worker.child.pid).cpu_times()
            least_s = min(least_s, used.user + used.system)

    assert least_s < 1.2


async def test_it_reports_to_its_hive(tmp_path: Path) -> None:
    async with fake_hive() as hive:
        flags = ["--worker-id", "w1", "--model-ref", "builtin:storyteller", "--device", "cpu"]
        async with worker_process(tmp_path, *flags, hive_url=hive.url) as worker:
            await hive.until(lambda hive: "idle" in hive.states)
            (ready,) = hive.of("/v1/workers/ready")
            beat = hive.of("/v1/heartbeat/workers")[-1]
            await worker.execute(prompt="hello", max_tokens=3)
            await hive.until(lambda hive: hive.states[-2:] == ["busy", "idle"], timeout_s=1)
            await worker.client.post("/v1/shutdown")
            await hive.until(lambda hive: hive.states[-1] == "draining", timeout_s=1)
            await worker.child.wait_exit()

    assert ready == {
        "worker_id": "w1",
        "url": worker.url,
        "model_ref": "builtin:storyteller",
        "backend": "cpu",
        "device": "cpu",
        "narrated": 5,
        "restart_count": 0,
        "memory": beat["memory"],
    }
    assert beat["memory"]["weights_bytes"] == pytest.approx(STORYTELLER.stat().st_size, rel=0.05)
    assert (beat["worker_id"], beat["url"], beat["slots_total"], beat["slots_busy"]) == ("w1", worker.url, 4, 0)
    assert beat["rss_bytes"] > 10_000_000
    assert {authorization for _, _, authorization in hive.heard} == {f"Bearer {KEY}"}


async def test_a_hive_that_does_not_answer_ends_it(tmp_path: Path) -> None:
    async with fake_hive() as hive:
        env = {"RBEE_TIME_SCALE": "0.1"}
        async with worker_process(tmp_path, hive_url=hive.url, env=env) as worker:
            await hive.until(lambda hive: "idle" in hive.states)
            hive.silent = True
            with anyio.fail_after(3):
                assert await worker.child.wait_exit() == 0
    assert worker.narrated[-3].details["reason"] == "the hive has not answered for 1 s"


async def test_a_hive_that_does_not_know_it_ends_it(tmp_path: Path) -> None:
    async with fake_hive(status=403) as hive, worker_process(tmp_path, hive_url=hive.url) as worker:
        with anyio.fail_after(5):
            assert await worker.child.wait_exit() == 0


async def test_a_hive_that_is_not_there_ends_it(tmp_path: Path) -> None:
    env = {"RBEE_TIME_SCALE": "0.1"}
    async with worker_process(tmp_path, hive_url="http://127.0.0.1:1", env=env) as worker:
        with anyio.fail_after(5):
            assert await worker.child.wait_exit() == 0


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        pytest.param(b"", "MODEL_INVALID", "is empty", id="empty"),
        pytest.param(b"PK\x03\x04 something else", "MODEL_INVALID", "not a GGUF", id="not a GGUF"),
        pytest.param(b"GGUF\x03\0\0\0", "MODEL_INVALID", "cannot be loaded", id="nothing but magic"),
        pytest.param(b"GGUF" + b"\xff" * 4000, "MODEL_INVALID", "cannot be loaded", id="damaged"),
        pytest.param("truncated", "MODEL_INVALID", "cannot be loaded", id="truncated"),
        pytest.param("directory", "MODEL_INVALID", "cannot be read", id="a directory"),
        pytest.param(None, "MODEL_NOT_FOUND", "no file", id="missing"),
    ],
)
async def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | str | None, code: str, words: str) -> None:
    model = tmp_path / "model.gguf"
    if content == "truncated":
        truncated_model(model)
    elif content == "directory":
        model.mkdir()
    elif isinstance(content, bytes):
        model.write_bytes(content)
    status, failure = await worker_failure(tmp_path, model=model)

    assert status == 1
    assert failure is not None
    assert (failure.code, words in failure.message) == (code, True), failure.message
    assert str(model) in failure.message


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        pytest.param(["--backend", "cuda"], "BACKEND_UNAVAILABLE", id="a build without it"),
        pytest.param(["--device", "7"], "BACKEND_UNAVAILABLE", id="device 7"),
        pytest.param(["--device", "gpu1"], "BACKEND_UNAVAILABLE", id="no device of the processor"),
        pytest.param(["--slots", "257"], "INVALID_REQUEST", id="slots"),
        pytest.param(["--slots", "8", "--n-ctx", "7"], "INVALID_REQUEST", id="less than a token for each slot"),
        pytest.param(["--kv", "shared"], "INVALID_REQUEST", id="unknown kind of cache"),
        pytest.param(["--kv-type", "q9"], "INVALID_REQUEST", id="unknown number format"),
        pytest.param(["--kv-type", "q8_0", "--flash-attn", "off"], "INVALID_REQUEST", id="a cache that needs it"),
        pytest.param(["--prefill-chunk", "513"], "INVALID_REQUEST", id="a chunk that fits no step"),
        pytest.param(["--queue", "3"], "INVALID_REQUEST", id="a line in a cluster"),
        pytest.param(["--backend", "abacus"], "INVALID_REQUEST", id="unknown backend"),
        pytest.param(["--n-ctx", "0"], "INVALID_REQUEST", id="no context"),
    ],
)
async def test_flags_that_cannot_be_met(tmp_path: Path, flags: list[str], code: str) -> None:
    status, failure = await worker_failure(tmp_path, *flags)

    assert status == 1
    assert failure is not None
    assert failure.code == code, failure.message


async def test_sigterm_lets_a_short_answer_end(tmp_path: Path) -> None:
    async with worker_process(tmp_path) as worker:
        await worker.until_ready()
        body = {"prompt": "write a short story", "max_tokens": 300}
        async with worker.client.stream("POST", "/execute", json=body) as stream:
            splitter = FrameSplitter()
            frames: list[Frame] = []
            async for chunk in stream.aiter_bytes():
                if not frames:
                    os.kill(worker.child.pid, signal.SIGTERM)
                frames += splitter.feed(chunk)
        assert [frame.event for frame in frames[-2:]] == ["end", "message"]
        with anyio.fail_after(3):
            assert await worker.child.wait_exit() == 0


async def test_a_long_answer_is_cut_when_the_drain_is_over(tmp_path: Path, endless: Path) -> None:
    env = {"RBEE_CLOCK_WORKER_DRAIN_S": "0.3"}
    async with worker_process(tmp_path, "--n-ctx", "32768", model=endless, env=env) as worker:
        await worker.until_ready()
        async with worker.client.stream("POST", "/execute", json={"prompt": "x", "max_tokens": 32_000}) as stream:
            splitter = FrameSplitter()
            frames: list[Frame] = []
            async for chunk in stream.aiter_bytes():
                if not frames:
                    assert (await worker.client.post("/shutdown")).status_code == 202
                    refused = await worker.refusal(prompt="x")
                    unready = await worker.client.get("/v1/ready")
                    assert refused == (503, "SHUTTING_DOWN")
                    assert (unready.status_code, unready.json()["state"]) == (503, "draining")
                    assert (await worker.health())["status"] == "draining"
                frames += splitter.feed(chunk)
        with anyio.fail_after(2):
            assert await worker.child.wait_exit() == 0

    assert frames[-2].json()["code"] == "SHUTTING_DOWN"
    assert frames[-1].data == b"[DONE]"


@pytest.mark.parametrize("when", ["idle", "in mid-answer"])
def test_the_parent_s_death_ends_it_within_a_second(tmp_path: Path, endless: Path, when: str) -> None:
    argv = [sys.executable, "-c", PARENT, str(tmp_path), str(endless), when]
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root, env=environment(tmp_path, PYTHONPATH=str(root)))
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.kill()
        parent.communicate()

    wait_gone([pid], within_s=1)


async def test_end_of_file_alone_ends_it_within_a_second(tmp_path: Path, endless: Path) -> None:
    async with worker_process(tmp_path, "--n-ctx", "32768", model=endless) as worker:
        await worker.until_ready()
        async with worker.client.stream("POST", "/execute", json={"prompt": "x", "max_tokens": 32_000}) as stream:
            chunks = stream.aiter_bytes()
            await anext(chunks)
            worker.child.close_stdin()
            with anyio.fail_after(1):
                await worker.child.wait_exit()


async def test_while_it_loads_it_says_so(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    os.mkfifo(model)  # the load waits until the test writes
    async with fake_hive() as hive, worker_process(tmp_path, model=model, hive_url=hive.url) as worker:
        await hive.until(lambda hive: hive.states)
        ready = await worker.client.get("/v1/ready")
        refused = await worker.refusal(prompt="x")
        async with worker.client.stream("GET", "/v1/loading/progress") as progress:
            splitter = FrameSplitter()
            frames: list[Frame] = []
            async for chunk in progress.aiter_bytes():
                if not frames:
                    model.write_bytes(b"nonsense")
                frames += splitter.feed(chunk)
        assert await worker.child.wait_exit() == 1

    assert (ready.status_code, ready.json()) == (
        503,
        {"ready": False, "state": "loading", "progress_url": "/v1/loading/progress"},
    )
    assert refused == (409, "NOT_READY")
    assert hive.states == ["loading"]
    assert hive.of("/v1/workers/ready") == []
    assert [frame.event for frame in frames] == ["progress", "error", "message"]
    assert frames[0].json()["stage"] == "load"
    assert frames[1].json()["code"] == "MODEL_INVALID"


async def test_it_stops_although_the_load_is_stuck(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    os.mkfifo(model)
    async with worker_process(tmp_path, model=model) as worker:
        assert (await worker.health())["status"] == "loading"
        await worker.client.post("/shutdown")
        with anyio.fail_after(5):
            assert await worker.child.wait_exit() == 0
    assert worker.narrated[-1].human == "exiting"


async def test_it_stops_while_it_loads(tmp_path: Path) -> None:
    async with worker_process(tmp_path) as worker:
        os.kill(worker.child.pid, signal.SIGTERM)
        with anyio.fail_after(5):
            assert await worker.child.wait_exit() in {0, -signal.SIGTERM}
    assert worker.child.failure is None


async def test_two_workers_take_the_first_free_ports(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    flags = ["--port", str(first)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with worker_process(tmp_path / "a", *flags) as one, worker_process(tmp_path / "b", *flags) as two:
        assert one.url != two.url
        assert one.url == f"http://127.0.0.1:{first}"


def local(home: Path, *flags: str) -> "subprocess.Popen[str]":
    argv = [*program_argv("llm-worker-rbee"), "--model", str(STORYTELLER), "--backend", "cpu", "--local-mode", *flags]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(home)
    )


def test_by_hand_it_serves_alone_without_a_key(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = local(tmp_path, "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(
            base_url=url, trust_env=False, verify=False, transport=httpx2.HTTPTransport(retries=8)
        ) as us:
            deadline = time.monotonic() + 15
            while us.get("/v1/ready").status_code != 204:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            answer = us.post("/execute", content=b'{"prompt":"hello"}')
            page = us.post("/execute", content=b'{"prompt":"hello"}', headers={"Origin": "https://evil.example"})
            rebound = us.get("/metrics", headers={"Host": "evil.example"})
            second = local(tmp_path, "--port", str(port))
            _, complaint = second.communicate(timeout=15)
    finally:
        worker.terminate()
        stdout, stderr = worker.communicate(timeout=10)

    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert (page.status_code, rebound.status_code) == (403, 403)
    assert second.returncode == 1
    assert f"port {port} is held by" in complaint
    assert f"(pid {worker.pid})" in complaint
    assert worker.returncode == 0
    assert stdout == "", "stdout is for a parent"
    assert "llm-worker: exiting" in stderr


def test_without_a_hive_it_says_how_to_start_it(tmp_path: Path) -> None:
    argv = [*program_argv("llm-worker-rbee"), "--model", str(STORYTELLER)]
    worker = subprocess.run(argv, capture_output=True, text=True, env=environment(tmp_path), timeout=15, check=False)

    assert worker.returncode == 1
    assert "--local-mode" in worker.stderr


def test_there_is_no_api_key_on_the_command_line(tmp_path: Path) -> None:
    argv = [*program_argv("llm-worker-rbee"), "--model", "x", "--api-key", "y"]
    worker = subprocess.run(argv, capture_output=True, text=True, env=environment(tmp_path), timeout=15, check=False)

    assert worker.returncode == 2
