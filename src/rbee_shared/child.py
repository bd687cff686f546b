"""A daemon that this process has started: a block that hands it its secrets, reads its narration, and stops it.

Built on `subprocess.Popen` rather than on the event loop's own child support, which kills a child whose transport is
collected: a keeper that leaves must not take the queen with it. Spawn from the main thread (`parent_death`).
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from rbee_shared.child_io import LineSplitter, drained, is_zombie, read_some, spawn
from rbee_shared.child_voice import Listening, Voice
from rbee_shared.errors import NoCapacityError, RbeeError, RequestTimeoutError
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration
from rbee_shared.redaction import printable_line, redact

_LOG = logging.getLogger("rbee.child")
_EXIT_POLL_S = 0.02
_KILL_WAIT_S = 5.0
_LAST_WORDS_LINES = 50
_LAST_WORDS_BYTES = 16 * 1024
_LAST_LINES_S = 1.0


@dataclass(frozen=True)
class Command:
    """What to start. `stderr` is the file that its standard error goes to: it outlives both processes."""

    argv: Sequence[str]
    stderr: Path
    env: Mapping[str, str] = field(default_factory=dict)


class Child:
    """A running daemon. Made by `running`."""

    def __init__(self, command: Command, popen: "subprocess.Popen[bytes]", hear: Callable[[Narration], None]) -> None:
        self.name = Path(command.argv[0]).name if command.argv else "?"
        self._command = command
        self._popen = popen
        self._voice = Voice(self._name(), hear)

    @property
    def listening(self) -> Listening | None:
        """Where it listens, once it has said so."""
        return self._voice.listening

    @property
    def failure(self) -> RbeeError | None:
        """Why it ends, if it has said so itself."""
        return self._voice.failure

    @property
    def lines_lost(self) -> int:
        """How many of its lines were no record."""
        return self._voice.lines_lost

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """As `subprocess` has it: negative is a signal; None while it runs."""
        return self._poll()

    async def wait_listening(self, timeout_s: float) -> Listening:
        """Wait until it has bound its port.

        Raises:
            RbeeError: its own error, if it said one before it died.
            NoCapacityError: it died without a word.
            RequestTimeoutError: it did neither in time.
        """
        if not await self._voice.wait_listening(timeout_s):
            text = f"{self._name()} did not start within {timeout_s:.0f} s"
            raise RequestTimeoutError(text, details=self._post_mortem())
        if self.listening is None:
            raise self.death()
        return self.listening

    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        """Wait until `lines` lines of its narration have arrived; give up quietly after `timeout_s`."""
        await self._voice.wait_heard(lines, timeout_s)

    async def wait_exit(self) -> int:
        """Wait until it is dead and all it said has been heard; its return code."""
        await self._voice.wait_end()
        return self._popen.wait()

    def death(self) -> RbeeError:
        """Why it died: its own error if it said one."""
        if self.failure is not None:
            return self.failure
        return NoCapacityError(
            f"{self._name()} died at start-up ({describe_exit(self.returncode)})",
            hint=f"Its last words are in {self._command.stderr}.",
            details=self._post_mortem(),
        )

    def last_words(self) -> list[str]:
        """The end of its standard error, secrets redacted."""
        try:
            with self._command.stderr.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [redact(printable_line(line)) for line in text.splitlines()[-_LAST_WORDS_LINES:]]

    def close_stdin(self) -> None:
        """End of file on its stdin: to the child this is the parent's death."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            self._popen.stdin.close()

    async def stop(self, grace_s: float) -> None:
        """End of file, then TERM, then KILL to its whole group. Returns when it is dead; harmless if it already is."""
        self.close_stdin()
        if not await self._exited_within(grace_s):
            self._signal_group(signal.SIGTERM)
            if not await self._exited_within(grace_s):
                _LOG.warning("%s (pid %d) does not stop: killing it", self._name(), self.pid)
                self._signal_group(signal.SIGKILL)
                await self._exited_within(_KILL_WAIT_S)

    async def terminate(self, grace_s: float) -> None:
        """TERM, then KILL: for a child that has been asked in its own way already."""
        self._signal_group(signal.SIGTERM)
        if not await self._exited_within(grace_s):
            self._signal_group(signal.SIGKILL)
            await self._exited_within(_KILL_WAIT_S)

    def kill(self) -> None:
        """KILL to its whole group, without waiting."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._poll() is None:  # not reaped yet, so the group's number is still its own
            os.killpg(self._popen.pid, number)

    def _poll(self) -> int | None:
        """Its return code. What a dead child leaves of its group is killed before the group's number is free."""
        if self._popen.returncode is None and is_zombie(self._popen.pid):
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        return self._popen.poll()

    async def _exited_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._until_exit()
        return self._poll() is not None

    async def _until_exit(self) -> None:
        if sys.platform == "linux" and self._poll() is None:
            descriptor = os.pidfd_open(self._popen.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        while self._poll() is None:  # noqa: ASYNC110 - there is no event for it on macOS
            await anyio.sleep(_EXIT_POLL_S)

    async def _pump_within(self, scope: anyio.CancelScope) -> None:
        with scope:
            await self._pump()

    async def _pump(self) -> None:
        """Read its stdout for its whole life: an undrained pipe would stop it."""
        stdout = self._popen.stdout
        assert stdout is not None
        lines = LineSplitter()
        os.set_blocking(stdout.fileno(), False)
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_when_dead, group.cancel_scope)
            while chunk := await read_some(stdout.fileno()):
                for line in lines.feed(chunk):
                    self._voice.take(line)
            await self._until_exit()
            group.cancel_scope.cancel()
        for line in lines.feed(drained(stdout.fileno()) + b"\n"):
            self._voice.take(line)
        self._voice.end()

    async def _end_when_dead(self, scope: anyio.CancelScope) -> None:
        """A grandchild may hold the pipe open: the child's own death ends the reading."""
        await self._until_exit()
        await anyio.sleep(_EXIT_POLL_S)
        scope.cancel()

    def _name(self) -> str:
        module = next((arg for arg in self._command.argv if arg.endswith(("rbee", "rbee_hive"))), self.name)
        return module.replace("_", "-")

    def _post_mortem(self) -> dict[str, Any]:
        return {"log": str(self._command.stderr), "last_words": self.last_words()[-5:]}


@asynccontextmanager
async def running(
    command: Command,
    handshake: Handshake,
    hear: Callable[[Narration], None],
    *,
    stop_grace_s: float | None,
) -> AsyncGenerator[Child]:
    """Start `command` in a session of its own, give it `handshake`, and stop it on leaving.

    `stop_grace_s` None leaves it running: it only loses this process's end of its stdin.

    Raises:
        NoCapacityError: no process could be started.
    """
    child = Child(command, spawn(command.argv, command.env, command.stderr), hear)
    try:
        _hand_over(child._popen, handshake)  # noqa: SLF001 - same module, made two lines above
        listening = anyio.CancelScope(shield=True)  # what it says while it is being stopped is heard too
        async with anyio.create_task_group() as group:
            group.start_soon(child._pump_within, listening)  # noqa: SLF001
            try:
                yield child
            finally:
                with anyio.CancelScope(shield=True):  # our own cancellation must not leak a live child
                    if stop_grace_s is not None:
                        await child.stop(stop_grace_s)
                        with anyio.move_on_after(_LAST_LINES_S):
                            await child._voice.wait_end()  # noqa: SLF001 - its last lines
                listening.cancel()
    finally:
        child.close_stdin()
        if child._popen.stdout is not None:  # noqa: SLF001
            child._popen.stdout.close()  # noqa: SLF001


def _hand_over(popen: "subprocess.Popen[bytes]", handshake: Handshake) -> None:
    assert popen.stdin is not None
    try:
        popen.stdin.write(handshake.line())  # far below a pipe's capacity: does not block
    except BrokenPipeError:
        _LOG.debug("pid %d died before its handshake", popen.pid)  # whoever waits for it is told why


def describe_exit(returncode: int | None) -> str:
    """`exit 3`, `killed by SIGSEGV`."""
    if returncode is None:
        return "still running"
    if returncode >= 0:
        return f"exit {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
