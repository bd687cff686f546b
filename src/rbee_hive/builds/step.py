"""Runs one program of a worker build: its output in a log, watched for silence, nothing of it left behind.

Guarantees: on cancellation, and however the hive dies, the whole family of processes ends (`step_guard`). The output
goes straight into the log file, so no pipe can fill up, and a hive that is killed loses none of it.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from rbee_hive.builds import step_guard
from rbee_shared.child import describe_exit
from rbee_shared.child_io import LineSplitter, is_zombie
from rbee_shared.errors import BuildFailedError
from rbee_shared.redaction import printable_line, redact

_POLL_S = 0.1
_STOP_S = 8.0  # longer than the guard takes to ask and to insist
_KEPT_LINES = 200  # behind what the compiler said stands what pip makes of it
_READ_BYTES = 1024 * 1024
_PRIVATE_FILE = 0o600
_SIGNALLED = 128


@dataclass(frozen=True)
class StepPlace:
    """Where steps run. `lock`: a descriptor that stays open, and its file locked, until the step's guard is gone."""

    log: Path
    silence_s: float
    lock: int | None = None


@dataclass(frozen=True)
class StepEnd:
    """How a step ended. `status`: as a shell has it; `lines`: the last ones of its output, secrets redacted."""

    status: int
    lines: tuple[str, ...]

    @property
    def how(self) -> str:
        """`exit 3`, `killed by SIGSEGV`."""
        return describe_exit(self.status if self.status < _SIGNALLED else _SIGNALLED - self.status)


async def run_step(
    argv: Sequence[str], env: Mapping[str, str], place: StepPlace, hear: Callable[[Sequence[str]], None]
) -> StepEnd:
    """Run `argv` to its end. `hear` is called ten times a second, with the lines since the last time, if any.

    Raises:
        BuildFailedError: it cannot be started, or has said nothing for `place.silence_s`.
    """
    output = _Output(place.log)
    await anyio.to_thread.run_sync(output.skip)
    async with _running(argv, env, place) as guard:
        heard_at_s = anyio.current_time()
        while True:
            ended = _has_ended(guard)
            lines = await anyio.to_thread.run_sync(output.new_lines)
            hear(lines)
            if ended:
                return StepEnd(guard.wait(), output.last)
            if output.grew:
                heard_at_s = anyio.current_time()
            elif anyio.current_time() - heard_at_s > place.silence_s:
                raise BuildFailedError(
                    f"no line of output came for {place.silence_s:.0f} s, so it was ended",
                    details={"last_lines": list(output.last)},
                )
            await anyio.sleep(_POLL_S)


@asynccontextmanager
async def _running(
    argv: Sequence[str], env: Mapping[str, str], place: StepPlace
) -> AsyncGenerator["subprocess.Popen[bytes]"]:
    guard = await anyio.to_thread.run_sync(_spawn, argv, env, place)
    try:
        yield guard
    finally:
        with anyio.CancelScope(shield=True):  # our own cancellation must not leave a compiler behind
            await _stop(guard)


def _spawn(argv: Sequence[str], env: Mapping[str, str], place: StepPlace) -> "subprocess.Popen[bytes]":
    try:
        with os.fdopen(os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE_FILE), "ab") as log:
            return subprocess.Popen(  # noqa: S603 - argv is built by our own code, never by a shell
                [sys.executable, "-P", step_guard.__file__, *argv],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=() if place.lock is None else (place.lock,),
                start_new_session=True,  # Ctrl+C in a terminal is for the hive
            )
    except OSError as error:
        raise BuildFailedError(f"{argv[0]} cannot be started: {error}", hint="Look for a full disk.") from None


async def _stop(guard: "subprocess.Popen[bytes]") -> None:
    """Have the guard end its family; if it does not, end its process group. Harmless when it is gone already."""
    assert guard.stdin is not None
    guard.stdin.close()
    with anyio.move_on_after(_STOP_S):
        while not _has_ended(guard):  # noqa: ASYNC110 - there is no event for it on macOS
            await anyio.sleep(_POLL_S / 5)
    if not _has_ended(guard):
        os.killpg(guard.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(guard.wait)


def _has_ended(guard: "subprocess.Popen[bytes]") -> bool:
    """Also when it was killed itself: what is left of its group is ended before the group's number is free."""
    if guard.returncode is None and is_zombie(guard.pid):
        with suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
    return guard.poll() is not None


class _Output:
    """Follows a log from the end that it has now. Its methods block."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = 0
        self._splitter = LineSplitter()
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self.grew = False

    @property
    def last(self) -> tuple[str, ...]:
        return tuple(self._last)

    def skip(self) -> None:
        with suppress(FileNotFoundError):
            self._position = self._log.stat().st_size

    def new_lines(self) -> list[str]:
        """Whole lines that have come since the last call."""
        began = self._position
        lines: list[str] = []
        try:
            with self._log.open("rb") as file:
                file.seek(self._position)
                while chunk := file.read(_READ_BYTES):
                    self._position += len(chunk)
                    lines += [
                        redact(printable_line(line.decode(errors="replace"))) for line in self._splitter.feed(chunk)
                    ]
        except FileNotFoundError:  # somebody tidies up; the build goes on
            return []
        self.grew = self._position > began
        self._last.extend(line for line in lines if line)
        return lines
