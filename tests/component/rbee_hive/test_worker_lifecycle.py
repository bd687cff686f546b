"""Real workers of a real hive: spawn, stop, bad files, memory that does not come back."""

import os
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.hive import TOKEN, LiveHive, gone, operators_hive
from tests.support.models import storyteller, with_unknown_tokenizer

from rbee_shared.sse import FrameSplitter

_SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncGenerator[LiveHive]:
    async with operators_hive(tmp_path / "home") as live:
        yield live


async def _state(hive: LiveHive, worker_id: str, wanted: str, within_s: float) -> dict[str, Any]:
    with anyio.fail_after(within_s):
        while True:
            record = await hive.worker(worker_id)
            if record["state"] == wanted:
                return record
            await anyio.sleep(0.05)


async def _narration(hive: LiveHive, until: str) -> list[dict[str, Any]]:
    """All lines from the first to the one whose action is `until`."""
    lines: list[dict[str, Any]] = []
    splitter = FrameSplitter()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with anyio.fail_after(20):
        async with hive.client.stream("GET", f"{hive.url}/v1/events", headers=headers) as stream:
            async for chunk in stream.aiter_raw():
                for frame in splitter.feed(chunk):
                    lines.append(frame.json())
                    if lines[-1]["action"] == until:
                        return lines
    return lines


async def test_from_spawn_to_memory_that_is_free_again(hive: LiveHive) -> None:
    answer = await hive.client.post(
        f"{hive.url}/v1/workers/spawn?wait=ready",
        json={"model": "builtin:storyteller", "backend": "cpu", "device": 0},
        headers={"Authorization": f"Bearer {TOKEN}", "X-Correlation-Id": "req-the-users"},
    )
    assert answer.status_code == 201
    worker = answer.json()
    record = await hive.worker(worker["worker_id"])
    assert (record["state"], record["url"]) == ("idle", worker["url"])
    assert record["api_key"]
    assert record["memory"]["weights_bytes"] > 1_000_000
    assert min(record["memory"].values()) > 0

    stopped = (await hive.send("POST", f"/v1/workers/{worker['worker_id']}/stop")).json()

    assert (stopped["state"], stopped["error"]) == ("stopped", None)
    assert stopped["memory"]["released"]
    assert stopped["memory"]["worker_bytes"] > 10_000_000
    assert await gone(record["pid"], 0.1)
    again = await hive.send("POST", f"/v1/workers/{worker['worker_id']}/stop")
    assert again.json() == stopped
    assert not [name for name in os.listdir(hive.home / "logs") if name.endswith(".err")]  # noqa: PTH208

    lines = await _narration(hive, "worker_gone")
    texts = [f"{line['actor']}: {line['human']}" for line in lines]
    order = ["starting pool manager", "HTTP server ready", "waking a cpu worker on CPU", "HTTP server ready on :"]
    order += ["loading model", "reporting ready", "exiting", "is gone"]
    places = [next(i for i, text in enumerate(texts) if part in text and i >= n) for n, part in enumerate(order)]
    assert places == sorted(places), texts
    start_up = [line for line in lines if line["actor"] in {"llm-worker", "model-loader", "device-manager"}]
    assert {line.get("correlation_id") for line in start_up[:5]} == {"req-the-users"}
    assert {line["node"] for line in lines} == {lines[0]["node"]}


async def test_202_answers_before_the_worker_is_up_and_a_request_id_is_one_worker(hive: LiveHive) -> None:
    order = {"model": "storyteller", "request_id": "r1"}
    answers: list[dict[str, Any]] = []

    async def spawn() -> None:
        answer = await hive.send("POST", "/v1/workers/spawn", order)
        assert answer.status_code == 202
        answers.append(answer.json())

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(spawn)

    assert {answer["state"] for answer in answers} == {"starting"}
    assert len({answer["worker_id"] for answer in answers}) == 1
    other = await hive.send("POST", "/v1/workers/spawn", {**order, "request_id": "r2"})
    assert other.json()["worker_id"] != answers[0]["worker_id"]
    assert len(await hive.workers()) == 2


async def test_stop_all_ends_all_of_them_side_by_side_whatever_their_state(hive: LiveHive) -> None:
    ready = [await hive.spawn() for _ in range(2)]
    starting = (await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller"})).json()
    began_s = time.monotonic()

    answer = (await hive.send("POST", "/v1/workers/stop-all")).json()

    assert {worker["worker_id"] for worker in answer["workers"]} == {w["worker_id"] for w in [*ready, starting]}
    assert {worker["state"] for worker in answer["workers"]} == {"stopped"}
    assert time.monotonic() - began_s < 10
    assert (await hive.send("GET", "/health", token=None)).json()["workers"] == 0


async def test_who_is_told_to_go_by_hand_is_seen_to_go_and_not_brought_back(hive: LiveHive) -> None:
    worker = await hive.spawn()
    record = await hive.worker(worker["worker_id"])
    os.kill(record["pid"], signal.SIGTERM)

    assert await gone(record["pid"], 10)  # it drains first
    failed = await _state(hive, worker["worker_id"], "failed", within_s=1)

    assert failed["error"]["code"] == "WORKER_CRASHED"
    assert "exit 0" in failed["error"]["message"]
    await anyio.sleep(2)  # longer than the first restart's delay
    assert (await hive.worker(worker["worker_id"]))["restart_count"] == 0
    await hive.spawn()  # and the hive works on


@pytest.mark.parametrize("kept_bytes", [4, 64, 40_000, 2_000_000])
async def test_a_truncated_model_is_told_not_restarted_and_survived(
    hive: LiveHive, tmp_path: Path, kept_bytes: int
) -> None:
    path = tmp_path / "truncated.gguf"
    path.write_bytes(storyteller()[:kept_bytes])
    refused = await hive.send("POST", "/v1/models/import", {"path": str(path), "anywhere": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "MODEL_INVALID")

    path.write_bytes(storyteller())
    imported = (await hive.send("POST", "/v1/models/import", {"path": str(path), "anywhere": True})).json()
    path.write_bytes(storyteller()[:kept_bytes])
    answer = await hive.send("POST", "/v1/workers/spawn?wait=ready", {"model": imported["id"]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "MODEL_INVALID")
    assert await hive.workers() == []


async def test_a_model_that_only_the_engine_can_tell_is_bad_fails_once(hive: LiveHive, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(with_unknown_tokenizer(storyteller()))
    imported = (await hive.send("POST", "/v1/models/import", {"path": str(path), "anywhere": True})).json()

    answer = await hive.send("POST", "/v1/workers/spawn?wait=ready", {"model": imported["id"]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "MODEL_INVALID")
    await anyio.sleep(0.5)
    assert [(worker["state"], worker["restart_count"]) for worker in await hive.workers()] == [("failed", 0)]
    await hive.spawn()


async def test_a_model_file_that_went_away_or_turned_bad_starts_no_worker(hive: LiveHive, tmp_path: Path) -> None:
    path = tmp_path / "gone.gguf"
    path.write_bytes(storyteller())
    await hive.send("POST", "/v1/models/import", {"path": str(path), "anywhere": True})
    for content, status, code in ((b"", 422, "MODEL_INVALID"), (b"text", 422, "MODEL_INVALID"), (None, 404, None)):
        path.write_bytes(content) if content is not None else path.unlink()
        answer = await hive.send("POST", "/v1/workers/spawn", {"model": "gone"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code or "MODEL_NOT_FOUND")
    assert await hive.workers() == []


async def test_memory_that_a_worker_leaves_held_is_reported_with_the_holders_pid(tmp_path: Path) -> None:
    pid_file = tmp_path / "holder.pid"
    env = {"PYTHONPATH": str(_SUPPORT / "memory_holder"), "RBEE_TEST_HOLDER_PID": str(pid_file)}
    env["RBEE_CLOCK_MEMORY_BACK_S"] = "2"
    async with operators_hive(tmp_path / "home", env=env) as hive:
        worker = await hive.spawn()
        try:
            answer = (await hive.send("POST", f"/v1/workers/{worker['worker_id']}/stop")).json()
            holder = int(pid_file.read_text())

            assert answer["error"]["code"] == "MEMORY_NOT_RELEASED"
            assert not answer["memory"]["released"]
            assert [held["pid"] for held in answer["memory"]["holders"]] == [holder]
            assert answer["memory"]["holders"][0]["held_bytes"] > 500_000_000
            assert f"pid {holder}" in answer["error"]["message"]
            line = (await _narration(hive, "memory_not_released"))[-1]
            assert (line["level"], line["details"]["code"]) == ("error", "MEMORY_NOT_RELEASED")
        finally:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
