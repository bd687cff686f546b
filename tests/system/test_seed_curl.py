"""The curl lines of seed 002, in a shell as they stand.

Hosts and ports are the seed's own: curl is told where to find them. Lines whose values are placeholders (`<id>`) say
the same again and are left out.
"""

import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest
from tests.support.cluster import Cluster, frames_of, wait_until
from tests.support.seed_lab import Answer, SeedLab, curl, free_port, seed_lab, start_line

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

TASK_LINES_002 = [
    # 1.1
    """curl -X POST http://localhost:8080/v2/tasks \\
  -H 'Content-Type: application/json' \\
  -d '{
    "prompt": "Once upon a time",
    "max_tokens": 100,
    "temperature": 0.7,
    "model": "qwen-0.5b"
  }'""",
    # example 1, step 6
    """curl -X POST http://localhost:8080/v2/tasks \\
  -H 'Content-Type: application/json' \\
  -d '{
    "prompt": "Explain quantum computing in simple terms:",
    "max_tokens": 200,
    "temperature": 0.7,
    "model": "llama3-8b"
  }'""",
    # example 2
    """curl -X POST http://localhost:8080/v2/tasks \\
  -d '{"prompt": "Hello", "model": "qwen-0.5b"}'""",
    """curl -X POST http://localhost:8080/v2/tasks \\
  -d '{"prompt": "Hello", "model": "mistral"}'""",
]
# 1.2
EXECUTE_002 = """curl -X POST http://mac.home.arpa:8001/execute \\
  -H 'Content-Type: application/json' \\
  -d '{
    "job_id": "job-123",
    "prompt": "Hello, how are you?",
    "max_tokens": 50,
    "temperature": 0.7
  }'"""
# example 4
BACKENDS_002 = [
    f"""curl -X POST http://{host}.home.arpa:8001/execute \\
  -d '{{"job_id":"test-{number}","prompt":"Hello","max_tokens":20}}'"""
    for number, host in enumerate(("mac", "workstation", "blep"), 1)
]
# 3.1
CANCEL_TASK_002 = "curl -X POST http://localhost:8080/v2/tasks/job-123/cancel"
CANCEL_JOB_002 = """curl -X POST http://mac.home.arpa:8001/cancel \\
  -H 'Content-Type: application/json' \\
  -d '{"job_id": "job-123"}'"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[SeedLab]:
    with seed_lab(tmp_path_factory.mktemp("commands") / "home") as lab:
        yield lab


class Seen:
    """curl on a machine where the seeds' hosts are ours."""

    def __init__(self, lab: SeedLab, config: Path) -> None:
        self.config = config
        self.hosts = {
            "localhost:8080": lab.cluster.queen_url().replace("http://127.0.0.1", "localhost"),
            "mac.home.arpa:9200": lab.hive_url.removeprefix("http://"),
        }

    def run(self, line: str, *more: str, worker: str = "") -> Answer:
        hosts = {f"{host}:8001": worker for host in ("mac.home.arpa", "localhost") if worker}
        return curl(line, self.config, self.hosts | hosts, *more)


@pytest.fixture
def seen(lab: SeedLab, tmp_path: Path) -> Seen:
    return Seen(lab, tmp_path / "curl")


@needs_curl
@pytest.mark.parametrize("line", TASK_LINES_002)
def test_tasks_by_curl(lab: SeedLab, seen: Seen, line: str) -> None:
    accepted = seen.run(line)
    assert accepted.status == 202
    assert accepted.json["events_url"] == f"/v2/tasks/{accepted.json['task_id']}/events"
    events = seen.run(f"curl http://localhost:8080{accepted.json['events_url']}")

    frames = frames_of(events.text)
    started, end = (next(frame for frame in frames if frame["type"] == type_) for type_ in ("started", "end"))
    assert accepted.json["task_id"] == started["job_id"] == end["task_id"]
    assert end["stop_reason"] in {"EOS", "MAX_TOKENS"}
    assert end["tokens_out"] > 0


@needs_curl
def test_localhost_is_found_where_its_first_address_does_not_answer(lab: SeedLab, tmp_path: Path) -> None:
    port = lab.cluster.queen_url().rpartition(":")[2]
    line = f"curl http://localhost:{port}/health"

    answer = curl(line, tmp_path / "curl", {}, f'resolve = "localhost:{port}:[::1],127.0.0.1"')

    assert (answer.status, answer.json["status"]) == (200, "healthy")


@needs_curl
def test_health_by_curl(lab: SeedLab, seen: Seen) -> None:
    worker = lab.ready_worker()["url"].removeprefix("http://")
    queen = seen.run("curl http://localhost:8080/health")
    hive = seen.run("curl http://mac.home.arpa:9200/health")
    of_worker = seen.run("curl http://mac.home.arpa:8001/health", worker=worker)

    assert {answer.json["status"] for answer in (queen, hive, of_worker)} == {"healthy"}
    assert {"pools", "workers", "queue_depth"} <= set(queen.json)
    assert {"workers", "gpus"} <= set(hive.json)
    assert "vram_bytes" in of_worker.json


@needs_curl
def test_cancelling_a_task_by_curl(lab: SeedLab, seen: Seen) -> None:
    unknown = seen.run(CANCEL_TASK_002)
    task = seen.run(TASK_LINES_002[1]).json["task_id"]
    cancelled = seen.run(CANCEL_TASK_002.replace("job-123", task))

    assert (unknown.status, unknown.code) == (404, "TASK_NOT_FOUND")
    assert cancelled.status == 200
    assert cancelled.json["status"] in {"cancelled", "completed"}


@needs_curl
def test_a_cluster_s_worker_is_not_open_to_curl(lab: SeedLab, seen: Seen) -> None:
    """DESIGN §3: no client talks to a worker."""
    worker = lab.ready_worker()["url"].removeprefix("http://")
    for line in (EXECUTE_002, CANCEL_JOB_002, BACKENDS_002[0]):
        answer = seen.run(line, worker=worker)
        assert (answer.status, answer.code) == (401, "MISSING_API_KEY")


@needs_curl
def test_a_worker_by_hand_takes_the_lines_for_workers(cluster: Cluster, endless: str, tmp_path: Path) -> None:
    port = free_port()
    file = endless.removeprefix("file:")
    by_hand = f"llm-worker-rbee --model-path {file} --device cpu --port {port} --local-mode"
    worker = start_line(cluster, by_hand)
    wait_until(lambda: ready(f"http://127.0.0.1:{port}"), 30, "the worker is ready")
    hosts = {"localhost:8001": f"localhost:{port}"}

    answers = {
        line: curl(line.replace(host, "localhost"), tmp_path / "curl", hosts)
        for line, host in zip(
            [EXECUTE_002, *BACKENDS_002],
            ["mac.home.arpa", "mac.home.arpa", "workstation.home.arpa", "blep.home.arpa"],
            strict=True,
        )
    }
    for line, answer in answers.items():
        first, *between, end = frames_of(answer.text)
        assert (first["type"], end["type"], end["stop_reason"]) == ("started", "end", "MAX_TOKENS")
        assert f'"{first["job_id"]}"' in line
        assert f'"max_tokens":{end["tokens_out"]}' in line.replace(": ", ":")
        assert {frame["type"] for frame in between} == {"token", "narration"}

    shown = tmp_path / "shown"
    long = EXECUTE_002.replace("curl", "exec curl --noproxy localhost -sN", 1).replace("50", "30000")
    long = long.replace("mac.home.arpa:8001", f"localhost:{port}")
    with shown.open("wb") as out, subprocess.Popen(["sh", "-c", long], stdout=out) as job:
        wait_until(lambda: b'"token"' in shown.read_bytes(), 20, "it streams")
        cancelled = curl(CANCEL_JOB_002.replace("mac.home.arpa", "localhost"), tmp_path / "curl", hosts)
        assert job.wait(20) == 0
    assert cancelled.status == 202
    assert frames_of(shown.read_text())[-1]["stop_reason"] == "CANCELLED"
    again = curl(CANCEL_JOB_002.replace("mac.home.arpa", "localhost"), tmp_path / "curl", hosts)
    assert (again.status, again.code) == (404, "TASK_NOT_FOUND")
    assert httpx2.post(f"http://127.0.0.1:{port}/v1/shutdown", trust_env=False).status_code == 202
    assert worker.wait() == 0


def ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v1/ready", trust_env=False).status_code == 204
    except httpx2.HTTPError:
        return False
