"""`POST /v1/selftest`: a token is really decoded on each device, a file really written, and nothing stays of it."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest
from tests.support.hive import TOKEN, LiveHive, gone, operators_hive, queens_side
from tests.support.processes import alive, children_of, wait_until

_MISBEHAVING = Path(__file__).parents[2] / "support" / "misbehaving"
_PATIENCE_S = 60.0
_DECLARED = [
    {"backend": "metal", "index": 0, "name": "M1 Pro", "vram_bytes": 4_000_000_000, "build": "cpu"},
    {"backend": "cuda", "index": 1, "name": "RTX 3060", "vram_bytes": 4_000_000_000},
]


def _env(*devices: dict[str, Any]) -> dict[str, str]:
    return {"RBEE_HIVE_DEVICES": json.dumps(devices)} if devices else {}


async def _tested(hive: LiveHive, path: str = "/v1/selftest") -> dict[str, Any]:
    answer = await hive.send("POST", path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _left_of_workers(hive: LiveHive) -> list[str]:
    run = next((hive.home / "run").iterdir()) / "workers"
    notes = [path.name for path in run.iterdir()] if run.exists() else []
    return notes + [path.name for path in (hive.home / "logs").glob("worker-*")]


def _worker_pids(hive: LiveHive) -> list[int]:
    found = []
    for process in children_of(hive.process.pid):
        try:
            if "--worker-id" in process.cmdline():
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


async def test_each_device_with_a_build_decodes_one_token_and_one_without_is_told_what_would_make_it(
    tmp_path: Path,
) -> None:
    async with queens_side() as side, operators_hive(tmp_path / "home", env=_env(*_DECLARED)) as hive:
        await hive.adopt(queen_url=side.url, epoch=1)
        found = await _tested(hive, "/v1/selftest?level=quick")
        metal, cuda = found["devices"]

        assert (metal["id"], metal["backend"], metal["build"], metal["ok"]) == ("gpu0", "metal", "cpu-builtin", True)
        assert 0 < metal["seconds"] < _PATIENCE_S
        assert (cuda["id"], cuda["build"], cuda["ok"], cuda["seconds"]) == ("gpu1", None, False, None)
        assert cuda["error"]["code"] == "BACKEND_UNAVAILABLE"
        assert "rbee-hive builds make cuda" in cuda["error"]["hint"]
        (token,) = found["decoded"]
        assert (token["device"], token["backend"], token["build"]) == ("gpu0", "metal", "cpu-builtin")
        assert token["text"].strip(), "a word of a story"
        assert found["disk"] == {
            "models_dir": str((tmp_path / "home" / "models").resolve()),
            "free_bytes": found["disk"]["free_bytes"],
            "ok": True,
            "error": None,
        }
        assert found["disk"]["free_bytes"] > 0
        assert found["ok"] is False, "not everything is"

        assert await hive.workers() == [], "it is no worker of the cluster"
        assert not [beat for beat in side.beats if beat["workers"]], "so the queen never hears of it"
        assert side.ready == []
        assert _worker_pids(hive) == []
        assert _left_of_workers(hive) == []
        assert (await hive.send("POST", "/v1/selftest?level=integration")).status_code == 400


async def test_a_node_that_is_well_says_so(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        found = await _tested(hive)
        assert (found["ok"], [device["id"] for device in found["devices"]]) == (True, ["cpu"])
        assert await _tested(hive) != {}, "again"


async def test_it_needs_the_token_and_one_runs_at_a_time(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        assert (await hive.send("POST", "/v1/selftest", token=None)).status_code == 401
        codes: list[int] = []

        async def ask() -> None:
            answer = await hive.send("POST", "/v1/selftest")
            codes.append(answer.status_code)
            if answer.status_code != 200:
                assert answer.json()["error"]["code"] == "NOT_READY"

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert sorted(codes) == [200, 409, 409, 409, 409]
        assert (await hive.send("POST", "/v1/selftest")).status_code == 200, "the next one finds it free"


def _misbehaving(how: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_MISBEHAVING), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "RBEE_TEST_MISBEHAVIOUR": how}


@pytest.mark.parametrize(("how", "why"), [("aborts", "killed by SIGABRT"), ("stays", "did not start within 1 s")])
async def test_a_worker_that_dies_or_does_nothing_is_a_result(tmp_path: Path, how: str, why: str) -> None:
    env = {**_misbehaving(how), "RBEE_CLOCK_WORKER_BIND_S": "1" if how == "stays" else "30"}
    async with operators_hive(tmp_path / "home", env=env) as hive:
        found = await _tested(hive)

        (device,) = found["devices"]
        assert (device["ok"], device["build"], found["decoded"]) == (False, "cpu-builtin", [])
        assert why in device["error"]["message"]
        assert _worker_pids(hive) == []


async def test_a_hive_that_is_asked_to_go_waits_for_no_test(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env=_misbehaving("stays")) as hive:
        codes: list[str] = []

        async def ask() -> None:
            codes.append((await hive.send("POST", "/v1/selftest")).json()["error"]["code"])

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.to_thread.run_sync(lambda: wait_until(lambda: _worker_pids(hive), _PATIENCE_S, "a worker"))
            (pid,) = _worker_pids(hive)
            await anyio.sleep(0.5)  # until it is deaf
            await hive.send("POST", "/shutdown")
            assert await hive.exit_code(within_s=15) == 0
        assert codes == ["SHUTTING_DOWN"]
        assert await gone(pid, 0)


async def test_what_a_killed_hive_had_on_trial_is_ended_by_the_next(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env=_misbehaving("stays")) as hive:
        with anyio.CancelScope() as asking:
            async with anyio.create_task_group() as group:
                group.start_soon(hive.send, "POST", "/v1/selftest")
                await anyio.to_thread.run_sync(
                    lambda: wait_until(lambda: _left_of_workers(hive), _PATIENCE_S, "a note")
                )
                (pid,) = _worker_pids(hive)
                await anyio.sleep(0.5)  # until it is deaf
                asking.cancel()
        hive.process.kill()
        await hive.exit_code()
    assert alive(pid), "it must survive, or this proves nothing"
    async with operators_hive(tmp_path / "home", env={"RBEE_CLOCK_WORKER_DRAIN_S": "0.2"}):
        assert await gone(pid, 10)


async def test_a_disk_that_takes_no_file_is_told(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        models = tmp_path / "home" / "models"
        models.rename(tmp_path / "away")
        try:
            found = await _tested(hive)
        finally:
            (tmp_path / "away").rename(models)
        assert (found["ok"], found["disk"]["ok"]) == (False, False)
        assert "cannot be written" in found["disk"]["error"]
        assert found["devices"][0]["ok"] is True, "one thing does not hide the other"
        assert TOKEN not in json.dumps(found)
