"""The hive's HTTP contract, asked of a real hive: answers, refusals, the bodies of the seed documents."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.support.gguf_shapes import Size, llama, write_model
from tests.support.hive import LiveHive, operators_hive

_TINYLLAMA = "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LiveHive]:
    async with operators_hive(tmp_path_factory.mktemp("hive") / "home") as live:
        yield live


@pytest.fixture
async def fresh_hive(tmp_path: Path) -> AsyncGenerator[LiveHive]:
    async with operators_hive(tmp_path / "home") as live:
        yield live


async def test_facts(fresh_hive: LiveHive) -> None:
    hive = fresh_hive
    health = (await hive.send("GET", "/health", token=None)).json()
    assert {"status": "healthy", "program": "rbee-hive", "workers": 0, "gpus": 0}.items() <= health.items()
    assert (health["adopted"], health["standalone"]) == (False, False)

    for path in ("/v1/devices", "/devices"):
        devices = (await hive.send("GET", path)).json()
        assert devices["cpu"]["cores"] >= 1
        assert 0 < devices["cpu"]["free_bytes"] <= devices["cpu"]["ram_bytes"]
        assert (devices["gpus"], devices["models"], devices["workers"]) == ([], 1, 0)

    row = (await hive.send("GET", "/v1/models/storyteller")).json()
    assert (await hive.send("GET", "/v1/models")).json() == {"models": [row]}
    assert (row["provider"], row["reference"]) == ("builtin", "storyteller")

    for path in ("/v1/capacity", "/capacity"):
        room = await hive.send("GET", f"{path}?device=cpu&model=builtin:storyteller")
        assert room.status_code == 204
        numbers = json.loads(room.headers["x-rbee-capacity"])
        parts = ("weights_bytes", "kv_bytes", "compute_bytes", "overhead_bytes")
        assert sum(numbers[part] for part in parts) == numbers["required_bytes"] > row["size_bytes"]
        assert numbers["free_bytes"] > numbers["margin_bytes"] > 0
        assert (numbers["basis"], numbers["fits"], numbers["n_ctx"], numbers["slots"]) == ("header", True, 8192, 4)
        more = json.loads(
            (await hive.send("GET", f"{path}?model=storyteller&n_ctx=512&slots=1")).headers["x-rbee-capacity"]
        )
        assert (more["n_ctx"], more["kv_bytes"]) == (512, numbers["kv_bytes"] // 16)


async def test_a_model_that_does_not_fit_is_refused_with_both_numbers(hive: LiveHive, tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    write_model(path, llama(Size(8192, layers=80, heads=64, heads_kv=8, feed_forward=28_672)))  # takes no room
    imported = await hive.send("POST", "/v1/models/import", {"path": str(path), "anywhere": True})
    assert imported.json()["size_bytes"] > 2**35

    for answer in (
        await hive.send("GET", "/v1/capacity?device=cpu&model=huge"),
        await hive.send("POST", "/v1/workers/spawn", {"model": "huge"}),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (409, "INSUFFICIENT_MEMORY")
        assert error["details"]["required_bytes"] > error["details"]["free_bytes"] > 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        # bodies as they stand in the seed documents
        ("POST", "/v1/workers/spawn", {"model": _TINYLLAMA, "backend": "metal", "device": 0}, 404, "MODEL_NOT_FOUND"),
        (
            "POST",
            "/workers/start",
            {"device": "gpu1", "model_ref": "HF:author/minillama", "port_hint": 8601},
            404,
            "MODEL_NOT_FOUND",
        ),
        ("POST", "/v1/workers/spawn", {"model": "storyteller", "backend": "metal", "device": 0}, 503, None),
        ("POST", "/workers/start", {"device": "gpu1", "model_ref": "storyteller", "port_hint": 8601}, 503, None),
        ("POST", "/v1/workers/spawn", {"model": "storyteller", "device": 7}, 503, None),
        ("POST", "/v1/workers/spawn", {"model": "storyteller", "backend": "abacus"}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", {"model": "a", "model_ref": "b"}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", {}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", {"model": "a", "slots": 0, "n_ctx": -1}, 400, "INVALID_REQUEST"),
        ("GET", "/v1/capacity?device=gpu7&model=storyteller", None, 503, None),
        ("GET", "/v1/capacity?device=cpu&model=nothing", None, 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/capacity?device=cpu", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/models/nothing", None, 404, "MODEL_NOT_FOUND"),
        ("POST", "/v1/models/import", {"path": "/no/such.gguf", "anywhere": True}, 404, "MODEL_NOT_FOUND"),
        ("POST", "/v1/models/import", {"path": "/etc/passwd", "anywhere": True}, 422, "MODEL_INVALID"),
        ("POST", "/v1/models/import", {"path": "/etc/passwd"}, 403, "FORBIDDEN"),
        ("POST", "/v1/workers/worker-x/stop", None, 404, "WORKER_NOT_FOUND"),
        ("GET", "/v1/nothing", None, 404, "NOT_FOUND"),
        ("GET", "/shutdown", None, 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_refusals(hive: LiveHive, method: str, path: str, body: Any, status: int, code: str | None) -> None:
    answer = await hive.send(method, path, body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code or "BACKEND_UNAVAILABLE")
    assert error["hint"]
    assert error["source"].startswith("rbee-hive@")


async def test_all_faults_of_a_body_are_told_at_once(hive: LiveHive) -> None:
    answer = await hive.send("POST", "/v1/workers/spawn", {"model": "a", "slots": 0, "n_ctx": -1})
    assert {fault["field"] for fault in answer.json()["error"]["details"]["errors"]} == {"slots", "n_ctx"}

    for content in (b"{", b"[" * 100_000, b"\xff\xfe", b"null"):
        answer = await hive.send("POST", "/v1/workers/spawn", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    answer = await hive.send("POST", "/v1/workers/spawn", content=b" " * 10_000_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/devices"),
        ("GET", "/v1/capacity?model=storyteller"),
        ("GET", "/v1/models"),
        ("GET", "/v1/workers/list"),
        ("GET", "/v1/events"),
        ("POST", "/v1/models/import"),
        ("POST", "/v1/workers/spawn"),
        ("POST", "/workers/start"),
        ("POST", "/v1/workers/stop-all"),
        ("POST", "/v1/adopt"),
        ("POST", "/shutdown"),
        ("POST", "/v1/shutdown"),
    ],
)
async def test_every_route_but_health_wants_the_token(hive: LiveHive, method: str, path: str) -> None:
    for token, code in ((None, "MISSING_API_KEY"), ("wrong", "INVALID_API_KEY")):
        answer = await hive.send(method, path, {} if method == "POST" else None, token=token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


async def test_only_an_expected_worker_with_its_own_key_is_heard(hive: LiveHive) -> None:
    first, second = await hive.spawn(), await hive.spawn()
    one, two = await hive.worker(first["worker_id"]), await hive.worker(second["worker_id"])
    ready = {"worker_id": one["id"], "url": one["url"], "model_ref": "m", "backend": "cpu", "device": 0}

    async def code(path: str, body: dict[str, Any], token: str | None) -> tuple[int, str | None]:
        answer = await hive.send("POST", path, body, token=token)
        return answer.status_code, (answer.json().get("error") or {}).get("code")

    for path in ("/heartbeat/workers", "/v1/heartbeat/workers"):
        beat = {"worker_id": one["id"], "state": "Ready"}
        assert await code(path, beat, one["api_key"]) == (200, None)
        assert await code(path, beat, two["api_key"]) == (403, "FORBIDDEN")
        assert await code(path, beat, "wrong") == (401, "INVALID_API_KEY")
        assert await code(path, beat, None) == (401, "MISSING_API_KEY")
        assert await code(path, {**beat, "worker_id": "worker-x"}, one["api_key"]) == (403, "FORBIDDEN")
        assert await code(path, {**beat, "state": "happy"}, one["api_key"]) == (400, "INVALID_REQUEST")
    assert await code("/v1/workers/ready", ready, one["api_key"]) == (200, None)
    assert await code("/v1/workers/ready", ready, two["api_key"]) == (403, "FORBIDDEN")
