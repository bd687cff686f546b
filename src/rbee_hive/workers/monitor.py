"""Watches one worker's process at every beat: its pulse, the size of its log, the kernel's count of memory kills.

It says what is wrong and does nothing about it. The process's exit is seen elsewhere, at once.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from rbee_hive.domain.workers.death import OomKills
from rbee_hive.domain.workers.pulse import Pulse, after_heartbeat, after_words, fault
from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.oom import OomLedger, OomWatch
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerState
from rbee_shared.errors import RbeeError

_LOG = logging.getLogger("rbee.hive.worker")


class Monitor:
    """Made before the process, told what it says; `first_fault` runs while it lives."""

    def __init__(self, clocks: Clocks, log: Path, ledger: OomLedger) -> None:
        self.missed_beats = 0
        self._clocks = clocks
        self._log = log
        self._log_trouble: str | None = None
        self._ledger = ledger
        self._pulse = Pulse.beginning(anyio.current_time())
        self._oom: OomWatch | None = None

    def hear(self) -> None:
        """It has narrated something."""
        self._pulse = after_words(self._pulse, anyio.current_time())

    def feel(self, beat: WorkerHeartbeat) -> None:
        """It has sent a heartbeat."""
        self.missed_beats = 0
        self._pulse = after_heartbeat(self._pulse, beat, anyio.current_time())

    async def begin(self, pid: int) -> None:
        """The process runs; its clocks begin later, with `first_fault`."""
        self._oom = await anyio.to_thread.run_sync(OomWatch, pid, self._ledger)

    async def first_fault(self, state: Callable[[], WorkerState]) -> RbeeError:
        """Watch until something is wrong with it, and say what. From the moment that it has bound its port."""
        self._pulse = Pulse.beginning(anyio.current_time())
        while (found := fault(state(), self._pulse, self._clocks, anyio.current_time())) is None:
            await anyio.sleep(self._clocks.heartbeat_s)
            self.missed_beats += 1  # a heartbeat sets it back
            await anyio.to_thread.run_sync(self._look)
        return found

    def oom_kills(self) -> OomKills | None:
        """What the kernel has counted, for a process that a KILL ended which nobody here sent; ask once. Blocking."""
        return self._oom.verdict() if self._oom is not None else None

    def _look(self) -> None:
        try:
            worker_logs.bound(self._log)
        except OSError as error:  # said once, not at every beat; the worker is not the worse for it
            if str(error) != self._log_trouble:
                self._log_trouble = str(error)
                _LOG.warning("the log of a worker could not be kept short in good order: %s", error)
        if self._oom is not None:
            self._oom.look()
