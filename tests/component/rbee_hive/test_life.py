"""How long a hive lives: operators, queens, leases, signals; and that nothing outlives it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from tests.support.hive import TOKEN, QueensSide, _start, gone, operators_hive, queens_side

from rbee_shared.child import Command, running
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration
from rbee_shared.programs import program_argv

_FAST = {"RBEE_TIME_SCALE": "0.2"}


async def test_an_operators_hive_waits_for_ever_for_a_queen(tmp_path: Path) -> None:
    env = {"RBEE_CLOCK_HIVE_LEASE_S": "0.3", "RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "0.3"}
    async with operators_hive(tmp_path / "home", env=env) as hive:
        await anyio.sleep(1.5)
        assert (await hive.send("GET", "/health", token=None)).json()["adopted"] is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_workers_first_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        pid = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        hive.process.send_signal(number)

        assert await hive.exit_code(within_s=10) == 0
        assert await gone(pid, 0)
        text = hive.stderr.read_text()
    assert text.index("stopping 1 worker") < text.index("llm-worker: exiting") < text.index("is gone")
    assert not list((tmp_path / "home" / "run").glob("*/*.json"))


async def test_shutdown_over_http_refuses_new_work_meanwhile(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env={"RBEE_CLOCK_WORKER_DRAIN_S": "2"}) as hive:
        pid = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        os.kill(pid, signal.SIGSTOP)  # so that the shutdown takes its whole time
        assert (await hive.send("POST", "/shutdown")).json() == {"status": "shutting_down"}

        refused = await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SHUTTING_DOWN")
        assert (await hive.send("GET", "/health", token=None)).json()["status"] == "draining"

        assert await hive.exit_code(within_s=8) == 0
        assert await gone(pid, 0)


async def test_kill_9_of_the_hive_takes_its_worker_along(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        pid = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        hive.process.kill()
        assert await gone(pid, 1)


async def test_a_second_hive_of_one_home_is_refused_and_a_successor_of_a_killed_one_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with operators_hive(home) as first:
        second = await anyio.to_thread.run_sync(_start, home, tmp_path / "second", (), {})
        assert await anyio.to_thread.run_sync(second.wait, 10) == 1
        said = (tmp_path / "second").read_text()
        assert "HIVE_OWNED" in said
        assert first.url in said
        assert str(first.process.pid) in said
        first.process.kill()
        async with operators_hive(home) as successor:
            assert successor.url != first.url


async def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "one") as first:
        port = first.url.rpartition(":")[2]
        second = await anyio.to_thread.run_sync(_start, tmp_path / "two", tmp_path / "second", ("--port", port), {})
        assert await anyio.to_thread.run_sync(second.wait, 10) == 1
        said = (tmp_path / "second").read_text()
    assert "PORT_IN_USE" in said
    assert f"pid {first.process.pid}" in said


async def _ordered_worker(hive: Any, side: QueensSide) -> int:
    worker = await hive.spawn()
    with anyio.fail_after(5):
        while not any(beat["workers"] and beat["workers"][0]["state"] == "idle" for beat in side.beats):  # noqa: ASYNC110
            await anyio.sleep(0.02)
    return int((await hive.worker(worker["worker_id"]))["pid"])


async def test_an_adopted_hive_beats_reports_and_goes_when_its_queen_is_silent(tmp_path: Path) -> None:
    env = {**_FAST, "RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "10"}
    async with queens_side() as side, operators_hive(tmp_path / "home", "--name", "blep", env=env) as hive:
        assert (await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 1})).status_code == 200
        await side.heard(2)
        pid = await _ordered_worker(hive, side)
        beat = side.beats[-1]
        assert (beat["name"], beat["url"], beat["models"]) == ("blep", hive.url, ["storyteller"])
        assert beat["devices"][0]["free_bytes"] > 0
        assert beat["workers"][0]["api_key"]
        assert side.tokens == {f"Bearer {TOKEN}"}
        assert side.ready[0]["worker_id"] == beat["workers"][0]["id"]
        for text in ("", "ftp://x", "http://", "queen"):
            assert (await hive.send("POST", "/v1/adopt", {"queen_url": text, "epoch": 2})).status_code == 400
        other = await hive.send("POST", "/v1/adopt", {"queen_url": "http://127.0.0.1:9", "epoch": 2})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "HIVE_OWNED")
        await anyio.sleep(3)  # longer than the lease of 2 s: answers keep it
        assert hive.process.poll() is None

        side.silent = True
        began_s = time.monotonic()
        assert await hive.exit_code(within_s=8) == 0
        assert time.monotonic() - began_s > 1
        assert await gone(pid, 0.1)


async def test_a_standalone_hive_outlives_its_queen_without_her_workers_and_takes_the_next(tmp_path: Path) -> None:
    env = {**_FAST, "RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "5"}
    async with (
        queens_side() as side,
        queens_side() as successor,
        operators_hive(tmp_path / "home", "--standalone", env=env) as hive,
    ):
        await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 1})
        pid = await _ordered_worker(hive, side)
        side.silent = True

        assert await gone(pid, 10)
        assert (await hive.send("GET", "/health", token=None)).json()["adopted"] is False
        assert (await hive.send("POST", "/v1/adopt", {"queen_url": successor.url, "epoch": 2})).status_code == 200
        await successor.heard(2)


async def test_a_hive_that_announces_itself_keeps_announcing(tmp_path: Path) -> None:
    async with queens_side() as side:
        side.silent = True
        env = {**_FAST, "RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "5"}
        async with operators_hive(tmp_path / "home", "--queen", side.url, env=env) as hive:
            await anyio.sleep(2)
            side.silent = False
            await side.heard(2)
            assert (await hive.send("GET", "/health", token=None)).json()["adopted"] is True


async def test_a_hive_of_another_address_is_its_own_there_and_takes_the_token_of_its_file(tmp_path: Path) -> None:
    token_file = tmp_path / "cluster-token"
    token_file.touch(0o600)
    token_file.write_text("the-clusters-token-in-a-file")
    arguments = ("--bind", "127.0.0.2", "--token-file", str(token_file))
    async with queens_side() as side, operators_hive(tmp_path / "home", "--queen", side.url, *arguments) as hive:
        await side.heard(1)
        assert hive.url.startswith("http://127.0.0.2:")
        assert side.beats[0]["url"] == hive.url
        assert side.tokens == {"Bearer the-clusters-token-in-a-file"}
        assert (await hive.send("GET", "/v1/status")).status_code == 401, "the home's own token means nothing"
        headers = {"Authorization": "Bearer the-clusters-token-in-a-file"}
        body = {"model": "storyteller"}
        spawned = await hive.client.post(f"{hive.url}/v1/workers/spawn?wait=ready", json=body, headers=headers)
        assert spawned.status_code == 201, spawned.text


async def _spawned_by(hive_url: str) -> int:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(timeout=30, trust_env=False, verify=False, headers=headers) as client:
        spawned = await client.post(f"{hive_url}/v1/workers/spawn?wait=ready", json={"model": "storyteller"})
        assert spawned.status_code == 201, spawned.text
        return int((await client.get(f"{hive_url}/v1/workers/list")).json()["workers"][0]["pid"])


def _queens_command(home: Path, *arguments: str) -> Command:
    home.mkdir(mode=0o700)
    argv = [*program_argv("rbee-hive"), "daemon", "--parent", "stdin", *arguments]
    return Command(argv, home / "stderr", {"RBEE_HOME": str(home), "RBEE_HIVE_WORKER_PORT": "0", **_FAST})


@pytest.mark.allow_blocking("spawning from the main thread is what PDEATHSIG needs")
@pytest.mark.parametrize("how", ["end of file", "signal and end of file"])
async def test_a_queens_hive_says_its_url_its_lines_and_goes_with_its_parent(tmp_path: Path, how: str) -> None:
    lines: list[Narration] = []
    async with queens_side() as side, queens_side() as other:
        port = other.url.rpartition(":")[2]  # taken: with a parent any other will do
        handshake = Handshake.from_here(token=TOKEN, epoch=1, queen_url=side.url, correlation_id="req-1")
        command = _queens_command(tmp_path / "home", "--port", port, "--name", "localhost")
        async with running(command, handshake, lines.append, stop_grace_s=5) as child:
            listening = await child.wait_listening(20)
            assert not listening.url.endswith(f":{port}")
            await side.heard(1)
            await child.wait_heard(side.beats[0]["narrated"], 5)
            assert [line.human.partition(" on")[0] for line in lines[:2]] == [
                "starting pool manager", "HTTP server ready"
            ]  # fmt: skip
            assert {line.correlation_id for line in lines[:2]} == {"req-1"}
            assert side.beats[0]["epoch"] == 1

            worker_pid = await _spawned_by(listening.url)
            os.kill(worker_pid, signal.SIGSTOP)  # one that could not drain if it were asked to
            began_s = time.monotonic()
            if how == "end of file":
                child.close_stdin()
            else:  # the kernel's signal comes first, the end of file behind it
                os.kill(child.pid, signal.SIGTERM)
                await anyio.sleep(0.1)
                child.close_stdin()
            assert await child.wait_exit() == 0
            assert time.monotonic() - began_s < 1.2
            assert await gone(worker_pid, 0)


@pytest.mark.allow_blocking("spawning from the main thread is what PDEATHSIG needs")
async def test_a_queens_hive_has_a_lease_from_its_start(tmp_path: Path) -> None:
    async with queens_side() as side:
        side.silent = True
        handshake = Handshake.from_here(token=TOKEN, epoch=1, queen_url=side.url)
        command = _queens_command(tmp_path / "home", "--port", "0")
        began_s = time.monotonic()
        async with running(command, handshake, lambda _: None, stop_grace_s=5) as child:
            await child.wait_listening(20)
            with anyio.fail_after(10):
                assert await child.wait_exit() == 0
        assert time.monotonic() - began_s > 3  # 15 s, scaled by 0.2
