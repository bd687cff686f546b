"""Stops the hive of this home and machine for a person, or for a queen who has no other way left.

Guarantees: only the process that has signed the hive's lock or wrote its run file is signalled, known by pid and start
time; when it returns, neither that hive runs nor a worker that it left behind.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import anyio
import anyio.to_thread

from rbee_hive.local.known_process import KnownProcess, known
from rbee_hive.lock_holder import Holder, read_holder, unsign
from rbee_hive.workers.orphans import end_orphans, find_orphans
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.hives import HiveFarewell
from rbee_shared.errors import NodeUnreachableError, RbeeError, RequestTimeoutError
from rbee_shared.file_lock import try_lock
from rbee_shared.http_client import call, http_client
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home
from rbee_shared.run_file import claimed_daemon, read_run_file

_PROGRAM = "rbee-hive"
_POLL_S = 0.05
_ASK_S = 3.0
_LAST_STEPS_S = 2.0  # behind its drain, and of one that answers no more because it is as good as gone
_KILL_WAIT_S = 5.0
_NOW_S = 3.0
_BY_FORCE = "End it all the same: `rbee-hive stop --kill`."
How = Literal["asked", "SIGTERM", "SIGKILL"]


@dataclass(frozen=True)
class HiveStop:
    """`read_token` blocks, and raises an `RbeeError` where there is none."""

    home: Home
    clocks: Clocks
    narrator: Narrator
    read_token: Callable[[], str]

    async def carry_out(self, *, kill: bool, now: bool = False) -> HiveFarewell:
        """Ask it to go, and wait; with `kill` use signals where that does not help. What a dead one left ends too.

        `now`: it has been asked before, and nobody waits for its drain: signals only, the second one soon.

        Raises:
            RbeeError: it is still there, and why.
        """
        pid, how = None, None
        patience_s = self.clocks.hive_drain_s if kill else max(self.clocks.hive_drain_s, self.clocks.daemon_start_s)
        if now:
            patience_s = _NOW_S
        if (holder := await self._holder(patience_s)) is not None:
            async with known(holder.pid, holder.create_time) as process:
                if process is not None:
                    pid = process.pid
                    how = await (self._forced(process, _NOW_S) if now else self._end(process, kill=kill))
        if how not in {None, "asked"}:
            await anyio.sleep(self.clocks.parent_lost_drain_s)  # its workers have noticed, and are on their way
        return HiveFarewell(pid=pid, how=how or "none", workers=await self._clear_up())

    async def _holder(self, patience_s: float) -> Holder | None:
        """Who has the lock, as soon as it serves; one that is starting or ending is given `patience_s` for that.

        Raises:
            RequestTimeoutError: somebody has it who has not signed it.
        """
        deadline_s = anyio.current_time() + patience_s
        while True:
            running = await anyio.to_thread.run_sync(read_run_file, self.home.run_file(_PROGRAM))
            if running is not None:
                return Holder(running.pid, running.create_time)
            if await anyio.to_thread.run_sync(self._is_free):
                return None
            if anyio.current_time() > deadline_s:
                break
            await anyio.sleep(_POLL_S)
        holder = await anyio.to_thread.run_sync(read_holder, self.home.lock_file(_PROGRAM))
        if holder is None:
            raise RequestTimeoutError(
                f"the hive's lock in {self.home.run} is held, and nobody says by whom",
                hint=f"See who has it open: `fuser {self.home.lock_file(_PROGRAM)}`.",
            )
        return holder

    async def _end(self, process: KnownProcess, *, kill: bool) -> How:
        failure = await self._asked(
            process, min(_ASK_S, self.clocks.control_call_s) if kill else self.clocks.control_call_s
        )
        if failure is None or await process.gone_within(_LAST_STEPS_S):
            return "asked"
        if not kill:
            raise type(failure)(failure.message, hint=_BY_FORCE, details=failure.details)
        self._say(failure.message)
        return await self._forced(process, self.clocks.hive_drain_s + _LAST_STEPS_S)

    async def _forced(self, process: KnownProcess, grace_s: float) -> How:
        self._say(f"ending the hive (pid {process.pid}) by SIGTERM")
        await process.send(signal.SIGTERM)
        await process.send(signal.SIGCONT)  # one that was stopped hears nothing else
        if await process.gone_within(grace_s):
            return "SIGTERM"
        self._say(f"the hive (pid {process.pid}) does not go: ending it by SIGKILL")
        await process.send(signal.SIGKILL)
        if await process.gone_within(_KILL_WAIT_S):
            return "SIGKILL"
        raise RequestTimeoutError(
            f"the hive (pid {process.pid}) outlives a SIGKILL", hint="It hangs in the kernel: restart that machine."
        )

    async def _asked(self, process: KnownProcess, answer_s: float) -> RbeeError | None:
        """Ask it over HTTP, and wait until it is gone; why that did not work. `answer_s`: it has for its answer."""
        try:
            running = await anyio.to_thread.run_sync(read_run_file, self.home.run_file(_PROGRAM))
            if running is None or running.pid != process.pid:
                return NodeUnreachableError(f"the hive (pid {process.pid}) runs, and does not serve")
            token = await anyio.to_thread.run_sync(self.read_token)
            async with http_client(connect_s=answer_s, call_s=answer_s) as client:
                await call(client, "POST", f"{running.url}/shutdown", token=token, unreachable=NodeUnreachableError)
        except RbeeError as error:
            return error
        patience_s = self.clocks.hive_drain_s + _LAST_STEPS_S
        if await process.gone_within(patience_s):
            return None
        return RequestTimeoutError(
            f"the hive (pid {process.pid}) was asked to go and is there after {patience_s:.0f} s"
        )

    async def _clear_up(self) -> tuple[str, ...]:
        """End the workers that the hive has left, and remove its run file. A next hive that is there does it itself."""
        if (lock := await anyio.to_thread.run_sync(self._lock)) is None:
            return ()
        try:
            await anyio.to_thread.run_sync(self._forget, lock)
            orphans = await find_orphans(self.home)
            await end_orphans(self.home, orphans, self.clocks, self.narrator)
            if left := await anyio.to_thread.run_sync(lambda: [each for each in orphans if each.lives]):
                names = ", ".join(f"{orphan.worker_id} (pid {orphan.pid})" for orphan in left)
                raise RequestTimeoutError(f"the hive is gone, and what it left is not: {names}", hint=_BY_FORCE)
        finally:
            os.close(lock)
        return tuple(orphan.worker_id for orphan in orphans)

    def _forget(self, lock: int) -> None:
        unsign(lock)
        run_file = self.home.run_file(_PROGRAM)
        if (claimed := claimed_daemon(run_file)) is None or not claimed.alive:
            run_file.unlink(missing_ok=True)

    def _is_free(self) -> bool:
        if not self.home.run.exists():
            return True
        if (lock := self._lock()) is None:
            return False
        os.close(lock)
        return True

    def _lock(self) -> int | None:
        """None where somebody has it, or no hive has ever run."""
        return try_lock(self.home.lock_file(_PROGRAM)) if self.home.run.exists() else None

    def _say(self, text: str) -> None:
        self.narrator.tell("stop", text, cute="🛑", level="warning")
