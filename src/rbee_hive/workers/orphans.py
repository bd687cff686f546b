"""Workers that a killed hive left behind: noted at their start, found by the next hive, ended.

A note is believed only as far as the process proves it: the pid runs, began when the note says, and carries the
worker's id in its environment. So a reused pid is never touched, nor a process that only has the right name.
"""

import json
import logging
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import psutil

from rbee_hive.workers.memory_probe import WORKER_ID_VARIABLE
from rbee_shared.clocks import Clocks
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home
from rbee_shared.process_identity import is_running

_LOG = logging.getLogger("rbee.hive.orphans")
_DIRECTORY = "workers"
_PRIVATE_DIR, _PRIVATE_FILE = 0o700, 0o600
_MAX_NOTE_BYTES = 4096
_POLL_S = 0.05
_KILL_WAIT_S = 5.0


@dataclass(frozen=True)
class Orphan:
    """A worker's process, as its note describes it. `create_time` is UNIX seconds."""

    worker_id: str
    pid: int
    create_time: float

    @property
    def lives(self) -> bool:
        """Whether that very process runs and is that worker."""
        return is_running(self.pid, self.create_time) and _mark(self.pid) == self.worker_id


@asynccontextmanager
async def noted(home: Home, worker_id: str, pid: int) -> AsyncGenerator[None]:
    """A note of the worker for the length of the block. One that cannot be written is no reason not to serve."""
    path = home.run / _DIRECTORY / f"{worker_id}.json"
    try:
        await anyio.to_thread.run_sync(_write, path, worker_id, pid)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, path)


async def find_orphans(home: Home) -> tuple[Orphan, ...]:
    """The workers that the hive before this one left; notes of dead ones, and what is no note, are removed.

    Only for who holds the hive's lock and has not started a worker yet.
    """
    return await anyio.to_thread.run_sync(_find, home.run / _DIRECTORY)


async def end_orphans(home: Home, orphans: tuple[Orphan, ...], clocks: Clocks, narrator: Narrator) -> None:
    """End them side by side: TERM, time to drain, then KILL to whatever is left of them."""
    async with anyio.create_task_group() as group:
        for orphan in orphans:
            group.start_soon(_end, home, orphan, clocks, narrator)


async def _end(home: Home, orphan: Orphan, clocks: Clocks, narrator: Narrator) -> None:
    narrator.tell(
        "orphan", f"ending worker {orphan.worker_id} (pid {orphan.pid}), which a hive before this one left behind",
        cute="🧟", level="warning", worker_id=orphan.worker_id, pid=orphan.pid,
    )  # fmt: skip
    await anyio.to_thread.run_sync(_signal, orphan, signal.SIGTERM)
    if not await _gone_within(orphan, clocks.worker_drain_s):
        await anyio.to_thread.run_sync(_kill_group, orphan)
    await anyio.to_thread.run_sync(_kill_marked, orphan.worker_id)
    if await _gone_within(orphan, _KILL_WAIT_S):
        await anyio.to_thread.run_sync(_remove, home.run / _DIRECTORY / f"{orphan.worker_id}.json")
        narrator.tell("orphan_gone", f"worker {orphan.worker_id} is gone", cute="🧹", worker_id=orphan.worker_id)
    else:
        _LOG.error("worker %s (pid %d) outlives a KILL; its note stays", orphan.worker_id, orphan.pid)


async def _gone_within(orphan: Orphan, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        while await anyio.to_thread.run_sync(is_running, orphan.pid, orphan.create_time):  # noqa: ASYNC110 - no child of ours
            await anyio.sleep(_POLL_S)
        return True
    return False


def _signal(orphan: Orphan, number: signal.Signals) -> None:
    """To that very process: psutil compares the start time again before it sends."""
    with suppress(psutil.Error):
        process = psutil.Process(orphan.pid)
        if orphan.lives:
            process.send_signal(number)


def _kill_group(orphan: Orphan) -> None:
    with suppress(ProcessLookupError):
        if orphan.lives and os.getpgid(orphan.pid) == orphan.pid:  # it lives, so its group's number is its own
            os.killpg(orphan.pid, signal.SIGKILL)
    _signal(orphan, signal.SIGKILL)


def _kill_marked(worker_id: str) -> None:
    """What the worker itself had started."""
    for process in psutil.process_iter():
        if _mark(process.pid) == worker_id:
            with suppress(psutil.Error):
                process.kill()


def _mark(pid: int) -> str | None:
    try:
        return psutil.Process(pid).environ().get(WORKER_ID_VARIABLE)
    except (psutil.Error, OSError):
        return None


def _write(path: Path, worker_id: str, pid: int) -> None:
    try:
        path.parent.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        note = Orphan(worker_id, pid, psutil.Process(pid).create_time())
        draft = path.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE), "w") as file:
            json.dump(asdict(note), file)
        draft.replace(path)
    except (OSError, psutil.Error) as error:
        _LOG.warning("worker %s is not noted for a hive after this one: %s", worker_id, error)


def _find(directory: Path) -> tuple[Orphan, ...]:
    found = []
    for path in sorted(directory.glob("*")):
        orphan = _read(path)
        if orphan is not None and orphan.lives:
            found.append(orphan)
        else:
            _LOG.info("the note %s is of no living worker: removed", path.name)
            _remove(path)
    return tuple(found)


def _remove(path: Path) -> None:
    """A note that stays does no harm: the next hive sees that it is of nobody."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("the note of a worker stays: %s", error)


def _read(path: Path) -> Orphan | None:
    """What a note says; None for what is none: half a note, another's file, numbers out of the world."""
    try:
        with path.open("rb") as file:
            facts = json.loads(file.read(_MAX_NOTE_BYTES))
        orphan = Orphan(str(facts["worker_id"]), int(facts["pid"]), float(facts["create_time"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return orphan if path.name == f"{orphan.worker_id}.json" and orphan.pid > 1 else None
