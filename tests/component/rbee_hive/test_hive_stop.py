"""`rbee-hive stop`: the hive goes, whatever state it is in, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hive import TOKEN, operators_hive, remote_hive
from tests.support.hive_cli import HiveCli, Result
from tests.support.processes import alive, processes_with_env, wait_gone, wait_until

from rbee_hive.local.known_process import KnownProcess, known
from rbee_hive.lock_holder import Holder, read_holder, sign, unsign
from rbee_shared.errors import ForbiddenError
from rbee_shared.file_lock import try_lock
from rbee_shared.handshake import Handshake

_PATIENCE_S = 60.0
_SLEEPER = "import signal, time\n{}\nprint('up', flush=True)\ntime.sleep(600)"
_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
_MISBEHAVING = Path(__file__).parents[2] / "support" / "misbehaving"


@pytest.fixture
def cli(tmp_path: Path) -> Generator[HiveCli]:
    """Whatever a test leaves of its home is found and ended: it must be nothing."""
    cli = HiveCli(tmp_path, {"RBEE_CLOCK_HIVE_DRAIN_S": "3", "RBEE_HIVE_WORKER_PORT": "0"})
    yield cli
    left = processes_with_env("RBEE_HOME", str(cli.home.root))
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    wait_gone([process.pid for process in left], _PATIENCE_S)


def stop(cli: HiveCli, *arguments: str) -> Result:
    return cli.process("stop", "--json", *arguments)


async def astop(cli: HiveCli, *arguments: str) -> Result:
    return await anyio.to_thread.run_sync(lambda: stop(cli, *arguments))


def nothing_left(cli: HiveCli) -> None:
    assert processes_with_env("RBEE_HOME", str(cli.home.root)) == []
    run = cli.home.run
    assert [path.name for path in run.rglob("*") if path.is_file()] in ([], ["rbee-hive.lock"])
    if run.exists():
        descriptor = try_lock(run / "rbee-hive.lock")
        assert descriptor is not None
        os.close(descriptor)


def started(cli: HiveCli, *arguments: str) -> "subprocess.Popen[bytes]":
    cli.home.ensure()
    return cli.start("daemon", "--port", "0", *arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def serving(cli: HiveCli) -> bool:
    return cli.home.run_file("rbee-hive").exists()


# a hive that answers


async def test_a_hive_is_asked_and_its_workers_end_before_it(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root) as hive:
        await hive.spawn()
        done = await astop(cli)
        assert done.status == 0, done.err
        assert done.json == {"pid": hive.process.pid, "how": "asked", "workers": []}
        assert await hive.exit_code(within_s=0.5) == 0
    nothing_left(cli)


async def test_a_person_reads_what_was_done(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root) as hive:
        said = await cli.aprocess("stop")
        assert (said.status, said.out) == (0, f"the hive (pid {hive.process.pid}) has stopped\n")
    said = await cli.aprocess("stop", "--kill")
    assert (said.status, said.out) == (0, "no hive runs here\n")


def test_where_no_hive_ever_ran_there_is_nothing_to_do(cli: HiveCli) -> None:
    for arguments in ((), ("--kill",)):
        assert stop(cli, *arguments).json == {"pid": None, "how": "none", "workers": []}
    assert not cli.home.root.exists(), "and nothing is made"


async def test_many_who_stop_it_at_once_all_succeed(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root) as hive:
        await hive.spawn()
        results: list[tuple[tuple[str, ...], Result]] = []

        async def one(*arguments: str) -> None:
            results.append((arguments, await astop(cli, *arguments)))

        async with anyio.create_task_group() as group:
            for arguments in ((), ("--kill",), (), ("--kill",)):
                group.start_soon(one, *arguments)
        assert [result.status for _, result in results] == [0] * 4, [result.err for _, result in results]
        assert {result.json["how"] for arguments, result in results if not arguments} <= {"asked", "none"}
        assert await hive.exit_code(within_s=1) == 0
    nothing_left(cli)


# one that does not


async def test_now_does_not_ask_and_ends_a_stopped_hive_too(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root, env=cli.environment) as hive:
        pids = [(await hive.worker((await hive.spawn())["worker_id"]))["pid"], hive.process.pid]
        os.kill(hive.process.pid, signal.SIGSTOP)

        done = await astop(cli, "--now")

        assert done.status == 0, done.err
        assert done.json["how"] in {"SIGTERM", "SIGKILL"}
        assert "no answer" not in done.err
        assert not [pid for pid in pids if alive(pid)]


async def test_a_stopped_hive_with_two_workers_is_ended_with_them(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root, env=cli.environment) as hive:
        pids = [(await hive.worker((await hive.spawn())["worker_id"]))["pid"] for _ in range(2)]
        for pid in (hive.process.pid, *pids):
            os.kill(pid, signal.SIGSTOP)

        refused = await astop(cli)
        assert refused.status == 3
        assert "rbee-hive stop --kill" in refused.json["error"]["hint"]
        assert all(alive(pid) for pid in (hive.process.pid, *pids))

        done = await astop(cli, "--kill")
        assert done.status == 0, done.err
        assert done.json["pid"] == hive.process.pid
        assert done.json["how"] in {"SIGTERM", "SIGKILL"}
        assert "no answer in time" in done.err
        assert "by SIGTERM" in done.err
        for pid in pids:
            assert not alive(pid)
        assert not alive(hive.process.pid)
    nothing_left(cli)


@pytest.mark.parametrize("wrong", ["no token", "another's token"])
async def test_a_queens_hive_whose_token_nobody_here_has_can_still_be_ended(cli: HiveCli, wrong: str) -> None:
    if wrong != "no token":
        await anyio.to_thread.run_sync(cli.home.ensure)
        cli.home.token.touch(0o600)
        cli.home.token.write_text("not-the-one-that-the-queen-has-given\n")
    async with remote_hive(cli.home.root, Handshake.from_afar(token=TOKEN), env=cli.environment) as hive:
        refused = await astop(cli)
        assert refused.status == 4
        assert "--kill" in refused.json["error"]["hint"]
        assert hive.process.poll() is None

        done = await astop(cli, "--kill")
        assert (done.status, done.json["how"]) == (0, "SIGTERM"), done.err
        assert hive.process.wait(_PATIENCE_S) == 0, "TERM is a gentle end"
    nothing_left(cli)


async def test_a_hive_that_hears_no_signal_is_killed_and_its_deaf_workers_are(cli: HiveCli) -> None:
    path = os.pathsep.join(filter(None, (str(_MISBEHAVING), os.environ.get("PYTHONPATH"))))
    env = {**cli.environment, "PYTHONPATH": path, "RBEE_TEST_MISBEHAVIOUR": "stays", "RBEE_CLOCK_WORKER_DRAIN_S": "1"}
    async with operators_hive(cli.home.root, env=env) as hive:
        await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller"})
        notes = cli.home.run / "workers"
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: [*notes.glob("*.json")], _PATIENCE_S, "its note"))
        worker = json.loads(next(notes.glob("*.json")).read_text())
        await anyio.sleep(0.5)  # until it is deaf
        hive.process.kill()
        await hive.exit_code()
    assert alive(worker["pid"]), "it must survive its hive, or this proves nothing"
    assert serving(cli), "the run file is stale"

    done = await astop(cli, "--kill")

    assert done.status == 0, done.err
    assert done.json == {"pid": None, "how": "none", "workers": [worker["worker_id"]]}
    assert not alive(worker["pid"])
    nothing_left(cli)


async def test_a_hive_that_does_not_go_in_its_time_is_told_apart_and_killed(cli: HiveCli) -> None:
    """It is stopped in the middle of its drain: it was asked, and answered."""
    env = {**cli.environment, "RBEE_CLOCK_WORKER_DRAIN_S": "30"}
    async with operators_hive(cli.home.root, env=env) as hive:
        pid = (await hive.worker((await hive.spawn())["worker_id"]))["pid"]
        os.kill(pid, signal.SIGSTOP)  # so that the drain takes its whole time
        await hive.send("POST", "/shutdown")
        os.kill(hive.process.pid, signal.SIGSTOP)

        done = await astop(cli, "--kill")

        assert done.status == 0, done.err
        assert done.json["how"] in {"SIGTERM", "SIGKILL"}
        assert not alive(pid)
    nothing_left(cli)


# one that is not up, or is down already


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4, 0.6, 0.8, 1.2])
@pytest.mark.parametrize("arguments", [(), ("--kill",)])
def test_a_hive_that_is_just_starting_is_stopped_or_was_not_there_yet(
    cli: HiveCli, after_s: float, arguments: tuple[str, ...]
) -> None:
    hive = started(cli)
    time.sleep(after_s)
    done = stop(cli, *arguments)
    assert done.status == 0, done.err
    if done.json["how"] == "none":  # it had not even taken the lock
        wait_until(lambda: serving(cli), _PATIENCE_S, "it is up after all")
        done = stop(cli)
        assert (done.status, done.json["pid"]) == (0, hive.pid)
    assert hive.wait(_PATIENCE_S) in {0, -signal.SIGTERM}, "the latter before it listens to signals"
    nothing_left(cli)


def test_a_hive_that_hangs_before_it_serves_is_known_by_its_lock(cli: HiveCli) -> None:
    cli.environment["RBEE_CLOCK_DAEMON_START_S"] = "3"
    hive = started(cli)
    lock = cli.home.lock_file("rbee-hive")
    wait_until(lambda: (holder := read_holder(lock)) is not None and holder.pid == hive.pid, _PATIENCE_S, "it signs")
    os.kill(hive.pid, signal.SIGSTOP)
    assert not serving(cli)

    refused = stop(cli)
    assert (refused.status, refused.json["error"]["code"]) == (3, "NODE_UNREACHABLE")
    done = stop(cli, "--kill")

    assert (done.status, done.json["pid"]) == (0, hive.pid), done.err
    hive.wait(_PATIENCE_S)
    nothing_left(cli)


@pytest.mark.parametrize("arguments", [(), ("--kill",)])
async def test_a_killed_hive_leaves_a_run_file_that_is_believed_by_nobody(
    cli: HiveCli, arguments: tuple[str, ...]
) -> None:
    async with operators_hive(cli.home.root) as hive:
        hive.process.kill()
        await hive.exit_code()
    assert serving(cli)
    assert (await astop(cli, *arguments)).json == {"pid": None, "how": "none", "workers": []}
    nothing_left(cli)


async def test_a_successor_is_not_taken_for_the_one_that_was_meant(cli: HiveCli) -> None:
    async with operators_hive(cli.home.root) as first:
        done = await astop(cli)
        assert done.json["pid"] == first.process.pid
    async with operators_hive(cli.home.root) as second:
        assert second.process.poll() is None
        assert (await second.send("GET", "/health", token=None)).status_code == 200
        await astop(cli)


# the wrong process


@pytest.fixture
def stranger() -> Generator[int]:
    """A process that has nothing to do with a hive."""
    with subprocess.Popen([sys.executable, "-c", _SLEEPER.format("")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        assert process.poll() is None, "it was ended"
        process.kill()


def _born(pid: int) -> float:
    return psutil.Process(pid).create_time()


@pytest.mark.parametrize("age_s", [60.0, -60.0, 3600.0])
def test_a_number_that_another_process_has_now_is_never_signalled(cli: HiveCli, stranger: int, age_s: float) -> None:
    home = cli.home.ensure()
    facts = {"pid": stranger, "create_time": _born(stranger) - age_s}
    home.run_file("rbee-hive").write_text(json.dumps({**facts, "url": "http://127.0.0.1:9", "instance": "x"}))
    home.lock_file("rbee-hive").write_text(json.dumps(facts))
    assert stop(cli, "--kill").json == {"pid": None, "how": "none", "workers": []}
    nothing_left(cli)


def test_a_lock_that_is_held_under_an_old_signature_ends_nobody(cli: HiveCli, stranger: int) -> None:
    lock = cli.home.ensure().lock_file("rbee-hive")
    lock.write_text(json.dumps({"pid": stranger, "create_time": _born(stranger) - 60}))
    descriptor = try_lock(lock)
    assert descriptor is not None
    try:
        done = stop(cli, "--kill")
        assert done.status == 0, "the one who signed is gone; who holds it now is another hive, or none"
        assert done.json["how"] == "none"
        unsign(descriptor)
        nameless = stop(cli, "--kill")
        assert (nameless.status, nameless.json["error"]["code"]) == (3, "REQUEST_TIMEOUT")
    finally:
        os.close(descriptor)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_signature_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    lock = tmp_path_factory.mktemp("home") / "lock"
    lock.write_bytes(content)
    assert read_holder(lock) is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"pid": 1, "create_time": 1}',
        b'{"pid": -7, "create_time": 1}',
        b'{"pid": 0, "create_time": 1}',
        b'{"pid": 1e999, "create_time": 1}',
        b'{"pid": "x", "create_time": 1}',
        b'{"pid": 7}',
        b"[" * 100_000,
        b"[]",
        b"7",
    ],
)
def test_what_is_no_signature_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    assert read_holder(tmp_path / "lock") is None
    assert read_holder(tmp_path / "gone") is None


def test_who_signs_is_who_runs_and_an_end_leaves_no_name(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("x" * 1000)
    descriptor = try_lock(lock)
    assert descriptor is not None
    sign(descriptor)
    holder = read_holder(lock)
    assert holder is not None
    assert (holder.pid, holder.lives) == (os.getpid(), True)
    unsign(descriptor)
    os.close(descriptor)
    assert lock.read_bytes() == b""
    assert not Holder(os.getpid(), _born(os.getpid()) - 60).lives


# one process, known


@pytest.fixture
def sleeper() -> Generator[Callable[..., "subprocess.Popen[bytes]"]]:
    with ExitStack() as stack:

        def start(code: str = "") -> "subprocess.Popen[bytes]":
            process = subprocess.Popen([sys.executable, "-c", _SLEEPER.format(code)], stdout=subprocess.PIPE)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            process.stdout.readline()
            return process

        yield start


@pytest.mark.parametrize("has_pidfd", [True, False], ids=["held", "compared"])
async def test_a_known_process_is_signalled_and_waited_for(
    sleeper: Callable[..., "subprocess.Popen[bytes]"], has_pidfd: bool
) -> None:
    process = await anyio.to_thread.run_sync(sleeper)
    async with known(process.pid, _born(process.pid)) as held:
        assert held is not None
        one = held if has_pidfd else KnownProcess(held.pid, held.create_time, None)
        assert not await one.gone_within(0.2)
        await one.send(signal.SIGTERM)
        assert await one.gone_within(10), "a zombie has ended"
        await one.send(signal.SIGKILL)  # to nobody
        assert process.wait(10) == -signal.SIGTERM
        await one.send(signal.SIGKILL)
        assert await one.gone_within(1)


async def test_a_dead_or_another_process_is_not_known(stranger: int) -> None:
    for pid, born in ((stranger, _born(stranger) - 60), (2**22 + 1, 1.0)):
        async with known(pid, born) as process:
            assert process is None
    await KnownProcess(stranger, _born(stranger) - 60, None).send(signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("has_pidfd", [True, False], ids=["held", "compared"])
def test_another_users_process_is_no_business_of_ours(tmp_path: Path, stranger: int, has_pidfd: bool) -> None:
    report, born = os.pipe(), _born(stranger)
    child = os.fork()
    if child == 0:
        outcome = b"signalled"
        try:
            os.setuid(65534)
            process = KnownProcess(stranger, born, os.pidfd_open(stranger) if has_pidfd else None)
            anyio.run(process.send, signal.SIGTERM)
        except ForbiddenError:
            outcome = b"refused"
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must see it
            outcome = repr(error).encode()
        os.write(report[1], outcome)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(report[0], 1000) == b"refused"
    for descriptor in report:
        os.close(descriptor)
