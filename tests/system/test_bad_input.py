"""Whatever is wrong: one clear line with code, cause and next step, the right exit status, and nothing left running."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from tests.support.cluster import Cluster
from tests.support.models import truncated_model

STRANGER = """
import http.server, sys
class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"status": "healthy"}')
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (("--max-tokens", "0"), 2, "INVALID_REQUEST"),
        (("--max-tokens", "-5"), 2, "INVALID_REQUEST"),
        (("--max-tokens", "1000000000"), 2, "INVALID_REQUEST"),
        (("--temperature", "nan"), 2, "INVALID_REQUEST"),
        (("--temperature", "-1"), 2, "INVALID_REQUEST"),
        (("--backend", "abacus"), 2, "INVALID_REQUEST"),
        (("--model", "no model\nname"), 2, "INVALID_REQUEST"),
        (("--model", "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"), 3, "DOWNLOAD_FAILED"),
        (("--model", "no-such-model"), 1, "MODEL_NOT_FOUND"),
        (("--model", "file:/no/such/file.gguf"), 1, "MODEL_NOT_FOUND"),
        (("--backend", "cuda"), 1, "BACKEND_UNAVAILABLE"),
        (("--device", "7"), 1, "BACKEND_UNAVAILABLE"),
        (("--node", "mac"), 1, "NODE_NOT_FOUND"),
    ],
)
def test_infer_refuses(cluster: Cluster, args: tuple[str, ...], status: int, code: str) -> None:
    keeper = cluster.keeper("infer", "hello", *args)

    _refused(keeper.stdout, keeper.stderr, keeper.wait(), status, code)
    if code == "INVALID_REQUEST":
        assert "waking her" not in keeper.stderr, "nobody is woken for nothing"


@pytest.mark.parametrize("damage", ["empty", "truncated", "no GGUF", "a directory"])
def test_damaged_models_are_named_and_the_hive_lives_on(cluster: Cluster, tmp_path: Path, damage: str) -> None:
    model = tmp_path / "model.gguf"
    match damage:
        case "empty":
            model.touch()
        case "truncated":
            truncated_model(model)
        case "no GGUF":
            model.write_bytes(b"#!/bin/sh\n" * 1000)
        case _:
            model.mkdir()
    cluster.standing_queen()

    keeper = cluster.keeper("infer", "hello", "--model", str(model))
    _refused(keeper.stdout, keeper.stderr, keeper.wait(), 1, "MODEL_INVALID")
    pids = {process.pid for process in cluster.processes("rbee-hive")}
    after = cluster.keeper("infer", "hello")

    assert after.wait() == 0, after.stderr
    assert {process.pid for process in cluster.processes("rbee-hive")} == pids
    assert len(cluster.processes("llm-worker-rbee")) == 1, "the damaged one is not restarted for ever"
    assert cluster.keeper("queen", "stop").wait() == 0


def test_a_port_held_by_another_program_is_said_by_name_and_pid(cluster: Cluster) -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    cluster.env |= {"RBEE_QUEEN_PORT": str(holder.getsockname()[1])}

    keeper = cluster.keeper("infer", "hello")
    queen = cluster.start("queen-rbee", "daemon")

    _refused(keeper.stdout, keeper.stderr, keeper.wait(), 3, "PORT_IN_USE")
    import os  # noqa: PLC0415 - the pid is only needed here

    assert str(os.getpid()) in keeper.stderr
    assert queen.wait() == 1
    assert "PORT_IN_USE" in queen.stderr
    assert str(os.getpid()) in queen.stderr
    holder.close()


def test_a_stranger_that_answers_health_is_no_queen(cluster: Cluster) -> None:
    with subprocess.Popen([sys.executable, "-c", STRANGER], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        port = stranger.stdout.readline().decode().strip()
        cluster.env |= {"RBEE_QUEEN_PORT": port}

        keeper = cluster.keeper("infer", "hello")

        _refused(keeper.stdout, keeper.stderr, keeper.wait(), 3, "PORT_IN_USE")
        assert str(stranger.pid) in keeper.stderr
        stranger.kill()


def test_wrong_tokens_and_hosts(cluster: Cluster, tmp_path: Path) -> None:
    cluster.standing_queen()
    wrong = tmp_path / "token"
    wrong.write_text("x" * 40)
    wrong.chmod(0o600)

    keeper = cluster.keeper("status", "--queen-url", cluster.queen_url(), "--token-file", str(wrong))
    _refused(keeper.stdout, keeper.stderr, keeper.wait(), 4, "INVALID_API_KEY")

    with cluster.http(token=False) as http:
        answers = {
            "no token": http.get("/v2/workers"),
            "shutdown": http.post("/shutdown"),
            "heartbeat": http.post("/v1/heartbeat", json={}),
            "rebinding": http.post("/v2/tasks", json={"prompt": "x"}, headers={"Host": "evil.example:8080"}),
            "web page": http.post("/v2/tasks", json={"prompt": "x"}, headers={"Origin": "https://evil.example"}),
            "bad token": http.post("/v2/tasks", json={"prompt": "x"}, headers={"Authorization": "Bearer nope"}),
        }
    assert {name: (a.status_code, a.json()["error"]["code"]) for name, a in answers.items()} == {
        "no token": (401, "MISSING_API_KEY"),
        "shutdown": (401, "MISSING_API_KEY"),
        "heartbeat": (401, "MISSING_API_KEY"),
        "rebinding": (403, "HOST_NOT_ALLOWED"),
        "web page": (403, "HOST_NOT_ALLOWED"),
        "bad token": (401, "INVALID_API_KEY"),
    }
    assert cluster.keeper("queen", "stop").wait() == 0


def test_bodies_that_are_no_tasks(cluster: Cluster) -> None:
    cluster.standing_queen()
    deep = b"[" * 100_000
    with cluster.http(token=False) as http:
        answers = [
            http.post("/v2/tasks", content=content)
            for content in (b"not json", b"", b"[]", b'"x"', b"\xff\xfe", deep, b'{"prompt": 5}', b"{}")
        ]
        too_big = http.post("/v2/tasks", content=b'{"prompt": "' + b"x" * 10_000_000 + b'"}')
        many = http.post("/v2/tasks", content=b'{"prompt":"x","max_tokens":0,"temperature":NaN,"top_k":-1,"stop":[""]}')
        unknown = http.post("/v2/tasks", json={"prompt": "hello", "frobnicate": 1, "stream": True})
        unbuilt = http.post("/v2/tasks", json={"prompt": "hello", "deadline_ms": 5000})
        missing = http.get("/v2/tasks/task-0")

    assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(400, "INVALID_REQUEST")}
    assert (too_big.status_code, too_big.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert {fault["field"] for fault in many.json()["error"]["details"]["errors"]} == {
        "max_tokens", "temperature", "top_k", "stop.0",
    }  # fmt: skip
    assert "ignoring unknown fields: frobnicate" in unknown.text
    assert (unbuilt.status_code, unbuilt.json()["error"]["code"]) == (400, "NOT_SUPPORTED")
    assert "deadline_ms" in unbuilt.json()["error"]["message"]
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "TASK_NOT_FOUND")
    assert cluster.keeper("queen", "stop").wait() == 0


def test_a_prompt_longer_than_the_context(cluster: Cluster) -> None:
    keeper = cluster.keeper("infer", "word " * 5000)

    _refused(keeper.stdout, keeper.stderr, keeper.wait(), 2, "CONTEXT_OVERFLOW")


def test_a_reader_who_has_had_enough(cluster: Cluster, endless: str) -> None:
    script = f"{sys.executable} -m rbee_keeper infer go --model {endless} --max-tokens 30000 | head -c 10"
    shell = subprocess.run(["sh", "-c", script], env=cluster.env, capture_output=True, timeout=60, check=False)

    assert len(shell.stdout) == 10
    assert b"Traceback" not in shell.stderr
    cluster.all_gone(10)


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": ""}, {"TERM": ""}])
def test_poor_terminals(cluster: Cluster, env: dict[str, str]) -> None:
    keeper = cluster.keeper("infer", "erzähl 🐝", env=env)

    assert keeper.wait() == 0, keeper.stderr
    assert "\x1b" not in keeper.stdout + keeper.stderr
    assert len(keeper.stdout) > 10


def test_a_file_outside_the_model_directory_wants_the_token(cluster: Cluster, endless: str) -> None:
    cluster.standing_queen()
    task = {"prompt": "x", "model": endless, "max_tokens": 1, "stream": False}
    with cluster.http(token=False) as http:
        stranger = http.post("/v2/tasks", json=task)
    with cluster.http() as http:
        user = http.post("/v2/tasks", json=task)

    assert (stranger.status_code, stranger.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert user.status_code == 200, user.text
    assert cluster.keeper("queen", "stop").wait() == 0


def test_control_characters_never_reach_a_terminal_and_secrets_no_log(cluster: Cluster) -> None:
    keeper = cluster.keeper("infer", "hello \x1b[2J\x07 there")
    assert keeper.wait() == 0

    assert "\x1b" not in keeper.stderr
    logs = "".join(path.read_text(errors="replace") for path in (cluster.home / "logs").rglob("*") if path.is_file())
    assert cluster.token not in logs
    assert logs


def test_errors_as_json_lines(cluster: Cluster) -> None:
    keeper = cluster.keeper("infer", "hello", "--model", "no-such-model", "--json")

    assert keeper.wait() == 1
    events = [json.loads(line) for line in keeper.stdout.splitlines()]
    assert [event["code"] for event in events if event["type"] == "error"] == ["MODEL_NOT_FOUND"]


def test_a_bind_to_the_world_wants_the_token_everywhere(cluster: Cluster) -> None:
    cluster.start("queen-rbee", "daemon", "--bind", "0.0.0.0")
    with cluster.http(token=False) as http:
        refused = http.post("/v2/tasks", json={"prompt": "x"})
        health = http.get("/health")
    assert refused.status_code == 401
    assert health.status_code == 200
    assert isinstance(refused, httpx2.Response)
    assert cluster.keeper("queen", "stop").wait() == 0


def _refused(stdout: str, stderr: str, got: int, status: int, code: str) -> None:
    assert got == status, stderr
    assert code in stderr, stderr
    assert "next:" in stderr
    assert stdout == ""
    assert "Traceback" not in stderr
