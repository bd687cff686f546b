"""A hive that a queen has started through SSH: the loss of that connection, her return, and what if she does not."""

import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.support.hive import TOKEN, LiveHive, QueensSide, gone, operators_hive, queens_side, remote_hive
from tests.support.processes import alive

from rbee_shared.file_lock import try_lock
from rbee_shared.handshake import Handshake
from rbee_shared.programs import program_argv

_FAST = {"RBEE_TIME_SCALE": "0.2"}  # a lease of 3 s
_QUEEN = "queen-0123456789abcdef"
_QUEENS_TOKEN = "hives-own-token-for-her-callbacks"
_NEXT_TOKEN = "another-token-after-reconnecting"


def _handshake(side: QueensSide, **facts: Any) -> Handshake:
    own = {"token": TOKEN, "epoch": 1, "queen_url": side.url, "queen_id": _QUEEN, "queen_token": _QUEENS_TOKEN}
    return Handshake.from_afar(**{**own, **facts})


@pytest.fixture
async def side() -> AsyncGenerator[QueensSide]:
    async with queens_side() as side:
        yield side


@pytest.fixture
async def elsewhere() -> AsyncGenerator[QueensSide]:
    """The same queen behind another forward, or another queen."""
    async with queens_side() as side:
        yield side


@pytest.fixture
async def hive(tmp_path: Path, side: QueensSide) -> AsyncGenerator[LiveHive]:
    async with remote_hive(tmp_path / "home", _handshake(side), env=_FAST) as hive:
        await side.heard(1)
        yield hive


def _hang_up(hive: LiveHive) -> None:
    assert hive.process.stdin is not None
    hive.process.stdin.close()


async def _cut_off(hive: LiveHive, expected: bool = True) -> None:
    with anyio.fail_after(10):
        while (await hive.status())["cut_off"] is not expected:  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def _nothing_left(hive: LiveHive) -> None:
    run = next((hive.home / "run").iterdir())
    assert [path.name for path in run.rglob("*.json")] == []
    descriptor = await anyio.to_thread.run_sync(try_lock, run / "rbee-hive.lock")
    assert descriptor is not None, "its lock is free"
    os.close(descriptor)
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", int(hive.url.rpartition(":")[2]))


async def test_a_lost_connection_ends_nothing_and_lets_nothing_begin(
    hive: LiveHive, side: QueensSide, elsewhere: QueensSide
) -> None:
    pid = (await hive.worker((await hive.spawn(request_id="r1"))["worker_id"]))["pid"]
    side.silent = True
    _hang_up(hive)
    await _cut_off(hive)

    for path, body in (
        ("/v1/workers/spawn", {"model": "storyteller"}),
        ("/v1/models/provision", {"model": "storyteller"}),
        ("/v1/workers/provision", {"kind": "cpu"}),
        ("/v1/selftest", {}),
    ):
        refused = await hive.send("POST", path, body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "QUEEN_LOST"), path
        assert "reconnected" in refused.json()["error"]["hint"]
    assert [each["pid"] for each in await hive.workers()] == [pid]
    assert alive(pid)

    order = {"queen_url": elsewhere.url, "queen_id": _QUEEN, "queen_token": _NEXT_TOKEN, "epoch": 1}
    assert await hive.adopt(**order) == (200, {})
    status = await hive.status()
    assert (status["queen_url"], status["queen_id"], status["cut_off"]) == (elsewhere.url, _QUEEN, False)
    await elsewhere.heard(1, within_s=2)
    assert elsewhere.beats[0]["workers"][0]["pid"] == pid, "it is warm still"
    assert elsewhere.tokens == {f"Bearer {_NEXT_TOKEN}"}
    await anyio.sleep(4)  # longer than the lease: her answers keep it
    await hive.spawn()
    assert alive(pid)


async def test_nobody_comes_back_so_nothing_stays(hive: LiveHive, side: QueensSide) -> None:
    pids = [(await hive.worker((await hive.spawn())["worker_id"]))["pid"] for _ in range(2)]
    side.silent = True
    _hang_up(hive)

    assert await hive.exit_code(within_s=10) == 0

    for pid in pids:
        assert await gone(pid, 0.1)
    await _nothing_left(hive)


async def test_a_hive_that_never_heard_its_queen_goes_as_well(tmp_path: Path) -> None:
    nameless = Handshake.from_afar(token=TOKEN)
    async with remote_hive(tmp_path / "home", nameless, env=_FAST) as hive:
        _hang_up(hive)
        await _cut_off(hive)
        assert await hive.exit_code(within_s=10) == 0
        await _nothing_left(hive)


async def test_a_load_under_way_is_finished(hive: LiveHive, side: QueensSide) -> None:
    started = await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller"})
    _hang_up(hive)
    assert started.status_code == 202
    with anyio.fail_after(20):
        while (await hive.workers())[0]["state"] != "idle":  # noqa: ASYNC110
            await anyio.sleep(0.02)
    with anyio.fail_after(5):
        while not side.ready:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    assert side.tokens == {f"Bearer {_QUEENS_TOKEN}"}


async def test_an_answered_heartbeat_says_that_she_is_back(hive: LiveHive, side: QueensSide) -> None:
    side.silent = True
    _hang_up(hive)
    await _cut_off(hive)
    side.silent = False
    await _cut_off(hive, expected=False)
    await hive.spawn()


async def test_hangup_signals_mean_nothing_and_hide_no_end(hive: LiveHive, side: QueensSide) -> None:
    for _ in range(200):
        hive.process.send_signal(signal.SIGHUP)
    await hive.spawn()
    hive.process.terminate()
    with anyio.fail_after(30):
        while hive.process.poll() is None:
            hive.process.send_signal(signal.SIGHUP)
            await anyio.lowlevel.checkpoint()
    assert hive.process.returncode == 0
    await _nothing_left(hive)


async def test_she_may_come_back_in_the_last_moment(hive: LiveHive, side: QueensSide, elsewhere: QueensSide) -> None:
    side.silent = True
    _hang_up(hive)
    await _cut_off(hive)
    while True:
        refused = (await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller"})).json()["error"]
        if refused["details"]["lease_left_s"] <= 0.2:
            break
        await anyio.sleep(0.02)
    assert await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, epoch=2) == (200, {})
    await elsewhere.heard(2)
    await anyio.sleep(1)
    assert hive.process.poll() is None


async def test_heartbeats_go_to_her_new_address_although_the_old_one_hangs(
    tmp_path: Path, side: QueensSide, elsewhere: QueensSide
) -> None:
    """A forward whose other end is gone takes what is sent to it, and never answers."""
    async with remote_hive(tmp_path / "home", _handshake(side)) as hive:
        side.hangs = True
        with anyio.fail_after(10):
            reached = side.reached
            while side.reached == reached:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, epoch=1)
        await elsewhere.heard(1, within_s=1.5)
        side.hangs = False


async def test_a_stdout_that_is_closed_at_once_and_a_port_that_is_taken(tmp_path: Path, side: QueensSide) -> None:
    port = side.url.rpartition(":")[2]
    async with remote_hive(tmp_path / "home", _handshake(side), "--port", port, env=_FAST) as hive:
        assert hive.process.stdout is not None
        hive.process.stdout.close()
        await hive.spawn()
        await side.heard(3)
        assert not hive.url.endswith(f":{port}")
        assert hive.process.poll() is None


async def test_it_says_what_it_says_on_stdout_as_to_any_parent(hive: LiveHive) -> None:
    assert hive.process.stdout is not None
    hive.process.terminate()
    said = await anyio.to_thread.run_sync(hive.process.stdout.read)
    assert b'"type":"listening"' in said
    assert hive.url.encode() in said
    assert b"HTTP server ready" in said


# whose it is


async def test_another_queen_is_refused_with_its_owner_named(hive: LiveHive, elsewhere: QueensSide) -> None:
    refusals = [
        await hive.adopt(queen_url=elsewhere.url, queen_id="another", epoch=99),
        await hive.adopt(queen_url=elsewhere.url, epoch=99),
    ]
    for status, error in refusals:
        assert (status, error["code"]) == (409, "HIVE_OWNED")
        owner = {"queen_id": _QUEEN, "hive_url": hive.url, "pid": hive.process.pid}
        assert owner.items() <= error["details"].items()
        assert error["details"]["user"]
    assert elsewhere.beats == []


async def test_an_earlier_start_of_the_same_queen_is_refused(hive: LiveHive, elsewhere: QueensSide) -> None:
    assert (await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, epoch=5))[0] == 200
    status, error = await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, epoch=4)
    assert (status, error["code"]) == (409, "STALE_EPOCH")


async def test_of_many_queens_that_adopt_at_once_one_gets_the_hive(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        won: list[str] = []

        async def adopt(queen_id: str) -> None:
            status, error = await hive.adopt(queen_url="http://127.0.0.1:9", queen_id=queen_id, epoch=1)
            if status == 200:
                won.append(queen_id)
            else:
                assert error["code"] == "HIVE_OWNED"

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(adopt, f"queen-{number % 10}")
        assert len(set(won)) == 1
        assert len(won) == 10, "her own orders are no rivals"
        assert (await hive.status())["queen_id"] == won[0]


async def test_a_standalone_hive_stops_what_she_ordered_under_whatever_address(
    tmp_path: Path, side: QueensSide, elsewhere: QueensSide
) -> None:
    arguments = ("--port", "0", "--standalone")
    async with remote_hive(tmp_path / "home", _handshake(side), *arguments, env=_FAST) as hive:
        first = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, epoch=1)
        second = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        side.silent = elsewhere.silent = True
        _hang_up(hive)

        assert await gone(first, 10)
        assert await gone(second, 10)
        await _cut_off(hive, expected=False)
        assert (await hive.status())["adopted"] is False
        await hive.spawn()


async def test_her_token_is_told_to_nobody(hive: LiveHive, side: QueensSide, elsewhere: QueensSide) -> None:
    await hive.adopt(queen_url=elsewhere.url, queen_id=_QUEEN, queen_token=_NEXT_TOKEN, epoch=1)
    await elsewhere.heard(1)
    refused = [
        await hive.send("POST", "/v1/adopt", {"queen_url": "x", "queen_token": _NEXT_TOKEN, "epoch": 2}),
        await hive.send("POST", "/v1/adopt", {"queen_url": elsewhere.url, "queen_token": _NEXT_TOKEN, "epoch": "x"}),
        await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "queen_id": "q", "epoch": 9}),
        await hive.send("GET", "/v1/status"),
        await hive.send("GET", "/health", token=None),
    ]
    hive.process.terminate()
    assert await hive.exit_code() == 0
    assert hive.process.stdout is not None
    texts = [answer.text for answer in refused]
    texts.append((await anyio.to_thread.run_sync(hive.process.stdout.read)).decode())
    texts += [
        path.read_text(errors="replace") for path in hive.home.rglob("*") if path.is_file() and path.suffix != ".db"
    ]
    for secret in (_QUEENS_TOKEN, _NEXT_TOKEN, TOKEN):
        assert not [text for text in texts if secret in text]


def test_another_parent_is_no_option() -> None:
    argv = [*program_argv("rbee-hive"), "daemon", "--parent", "pipe"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert b"stdin" in done.stderr
    assert b"ssh" in done.stderr
