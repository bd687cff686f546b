"""Workers that outlive a killed hive: the next hive ends exactly those, and nothing that only looks like them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hive import gone, operators_hive
from tests.support.processes import alive

from rbee_hive.workers.orphans import Orphan, end_orphans, find_orphans, noted
from rbee_shared.clocks import Clocks
from rbee_shared.narration import Narration, Narrator
from rbee_shared.paths import Home

_MISBEHAVING = Path(__file__).parents[2] / "support" / "misbehaving"
_SLEEPER = "import signal, sys, time\n{}\nprint('up', flush=True)\ntime.sleep(600)"
_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
_CLOCKS = Clocks(worker_drain_s=0.5)


class Processes:
    """Real processes that are, or are not, what a note says."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, worker_id: str | None, code: str = "") -> int:
        env = {**os.environ, **({"RBEE_WORKER_ID": worker_id} if worker_id else {})}
        process = subprocess.Popen(
            [sys.executable, "-c", _SLEEPER.format(code)], env=env, start_new_session=True, stdout=subprocess.PIPE
        )
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        self._stack.callback(process.stdout.close)
        process.stdout.readline()
        return process.pid


@pytest.fixture
def processes() -> Generator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").ensure()


def _note(home: Home, worker_id: str, pid: int, create_time: float) -> Path:
    path = home.run / "workers" / f"{worker_id}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"worker_id": worker_id, "pid": pid, "create_time": create_time}))
    return path


def _born(pid: int) -> float:
    return psutil.Process(pid).create_time()


async def _end(home: Home, orphans: tuple[Orphan, ...]) -> list[Narration]:
    said: list[Narration] = []
    with anyio.fail_after(20):
        await end_orphans(home, orphans, _CLOCKS, Narrator("hive", said.append))
    return said


async def test_a_worker_is_noted_while_it_lives_for_its_owner_only(home: Home, processes: Processes) -> None:
    pid = processes.start("worker-a")
    path = home.run / "workers" / "worker-a.json"

    async with noted(home, "worker-a", pid):
        assert json.loads(path.read_text()) == {"worker_id": "worker-a", "pid": pid, "create_time": _born(pid)}
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert [entry.name for entry in path.parent.iterdir()] == ["worker-a.json"], "no draft stays"
        assert await find_orphans(home) == (Orphan("worker-a", pid, _born(pid)),)

    assert not path.exists()


async def test_a_worker_that_is_dead_already_is_no_trouble(home: Home) -> None:
    async with noted(home, "worker-a", 2**22 + 1):
        assert list((home.run / "workers").iterdir()) == []


async def test_a_note_that_cannot_be_removed_ends_nobody(
    home: Home, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    path = home.run / "workers" / "worker-a.json"
    async with noted(home, "worker-a", processes.start("worker-a")):
        path.unlink()
        path.mkdir()

    assert "the note of a worker stays" in caplog.text
    assert await find_orphans(home) == ()


@pytest.mark.parametrize("code", ["", _DEAF], ids=["one that takes TERM", "one that does not"])
async def test_what_a_hive_left_is_ended_with_what_it_had_started(home: Home, processes: Processes, code: str) -> None:
    worker, helper, stranger = (processes.start(id_, code) for id_ in ("worker-a", "worker-a", "worker-b"))
    note = _note(home, "worker-a", worker, _born(worker))

    found = await find_orphans(home)
    said = await _end(home, found)

    assert [orphan.pid for orphan in found] == [worker]
    assert not alive(worker)
    assert not alive(helper), "it carries the worker's mark"
    assert alive(stranger)
    assert not note.exists()
    assert [line.action for line in said] == ["orphan", "orphan_gone"]
    assert f"pid {worker}" in said[0].human


async def test_a_process_that_only_has_the_number_is_never_touched(home: Home, processes: Processes) -> None:
    other, unmarked, marked = processes.start("worker-b"), processes.start(None), processes.start("worker-c")
    notes = [
        _note(home, "worker-a", other, _born(other)),
        _note(home, "worker-d", unmarked, _born(unmarked)),
        _note(home, "worker-c", marked, _born(marked) - 60),
        _note(home, "worker-e", os.getpid(), _born(os.getpid())),
        _note(home, "worker-f", 1, _born(1)),
    ]

    assert await find_orphans(home) == ()

    assert not [path for path in notes if path.exists()], "they are of nobody, so they go"
    assert alive(other)
    assert alive(unmarked)
    assert alive(marked)


async def test_a_pid_that_is_reused_between_finding_and_ending_is_not_touched(home: Home, processes: Processes) -> None:
    other, younger = processes.start("worker-b"), processes.start(None)

    await _end(home, (Orphan("worker-a", other, _born(other)), Orphan("worker-c", younger, _born(younger) - 60)))

    assert alive(other)
    assert alive(younger)


_GARBAGE = [b"", b"{", b"null", b"[]", b"7", b'{"pid": 1}', b"\xff\xfe", b"[" * 100_000, b"x" * 10_000_000]
_GARBAGE += [
    b'{"worker_id": "worker-x", "pid": %b, "create_time": 1}' % pid for pid in (b"-1", b"0", b"1", b"1e400", b"9" * 30)
]
_GARBAGE += [
    b'{"worker_id": "../../x", "pid": 2, "create_time": 1}',
    b'{"worker_id": "worker-x", "pid": 2, "create_time": NaN}',
]


async def test_half_notes_and_garbage_are_removed_and_harm_nobody(home: Home, processes: Processes) -> None:
    worker = processes.start("worker-a")
    directory = _note(home, "worker-a", worker, _born(worker)).parent
    for number, content in enumerate(_GARBAGE):
        (directory / f"worker-{number}.json").write_bytes(content)
    (directory / "worker-x.json").write_bytes(_GARBAGE[-1])
    (directory / "worker-a.draft").write_bytes(b'{"worker_id": "wor')
    (directory / "linked.json").symlink_to("/etc/passwd")
    (directory / "folder").mkdir()

    assert [orphan.worker_id for orphan in await find_orphans(home)] == ["worker-a"]

    assert sorted(path.name for path in directory.iterdir()) == ["folder", "worker-a.json"]
    assert await anyio.Path("/etc/passwd").exists()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    home = Home(tmp_path_factory.mktemp("home")).ensure()
    (home.run / "workers").mkdir()
    (home.run / "workers" / "worker-a.json").write_bytes(content)

    assert anyio.run(find_orphans, home) == ()


# with real hives


@pytest.fixture
async def survivor(tmp_path: Path) -> AsyncGenerator[int]:
    """The pid of a worker that outlived its killed hive."""
    path = os.pathsep.join(filter(None, (str(_MISBEHAVING), os.environ.get("PYTHONPATH"))))
    env = {"PYTHONPATH": path, "RBEE_TEST_MISBEHAVIOUR": "stays"}
    pid = 0
    try:
        async with operators_hive(tmp_path / "home", env=env) as first:
            await first.send("POST", "/v1/workers/spawn", {"model": "storyteller"})
            notes = tmp_path / "home" / "run" / socket.gethostname() / "workers"
            with anyio.fail_after(10):
                while not (found := list(notes.glob("*.json"))):  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            pid = json.loads(found[0].read_text())["pid"]
            await anyio.sleep(0.5)  # until it is deaf
            first.process.kill()
            await first.exit_code()
        await anyio.sleep(0.5)
        assert alive(pid), "it must survive, or this proves nothing"
        yield pid
    finally:
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_the_next_hive_ends_the_survivor_and_serves_meanwhile(tmp_path: Path, survivor: int) -> None:
    async with operators_hive(tmp_path / "home", env={"RBEE_CLOCK_WORKER_DRAIN_S": "2"}) as second:
        began_s = time.monotonic()
        assert (await second.send("GET", "/health", token=None)).status_code == 200
        worker = await second.spawn()
        assert alive(survivor) or time.monotonic() - began_s > 2, "it is given time to end an answer"

        assert await gone(survivor, 10)

        assert (await second.worker(worker["worker_id"]))["state"] == "idle", "its own is not touched"
        notes = list((tmp_path / "home" / "run" / socket.gethostname() / "workers").iterdir())
        with anyio.fail_after(5):
            while len(notes) != 1:
                notes = list(notes[0].parent.iterdir())
                await anyio.sleep(0.05)
    assert not list(notes[0].parent.iterdir()), "a hive that ends in order leaves no note"


async def test_a_hive_that_is_killed_while_it_ends_a_survivor_leaves_it_to_the_next(
    tmp_path: Path, survivor: int
) -> None:
    async with operators_hive(tmp_path / "home", env={"RBEE_CLOCK_WORKER_DRAIN_S": "60"}) as second:
        await anyio.sleep(0.5)
        second.process.kill()
        await second.exit_code()
    assert alive(survivor)
    async with operators_hive(tmp_path / "home", env={"RBEE_CLOCK_WORKER_DRAIN_S": "0.2"}):
        assert await gone(survivor, 10)
