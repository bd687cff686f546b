"""One worker, over all the processes it may need: what is known of it, and whether a crash is the end of it.

Guarantees: a crash is followed by a new process as `domain.restart_policy` decides, or said plainly to be final;
what a dead process left behind is named; a stop ends the wait for the next process at once; nothing it does ends the
hive.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.to_thread

from rbee_hive.domain.workers.restart_policy import MAX_RESTARTS, Death, restart_delay_s, restarts_in_a_row
from rbee_hive.domain.workers.worker_state import LIVE, SERVING, WorkerSignal
from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.memory_proof import StopReport, look_behind
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.process import HiveSide, WorkerProcess
from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat, WorkerRecord, WorkerState
from rbee_shared.errors import NoCapacityError, RbeeError
from rbee_shared.ids import new_secret
from rbee_shared.narration import Narrator, correlation_id
from rbee_shared.units import format_seconds

_LOG = logging.getLogger("rbee.hive.worker")
_COMING_UP = frozenset({WorkerState.STARTING, WorkerState.LOADING})


@dataclass(frozen=True)
class Surroundings(HiveSide):
    """What every worker of a hive needs from it. `changed` is called after every change of state."""

    changed: Callable[["Worker"], None]


class Worker:
    """A worker and what is known of it. Each of its processes has a key of its own."""

    def __init__(self, order: WorkerOrder, around: Surroundings) -> None:
        self.order = order
        self.restart_count = 0
        self.crash_count = 0
        self.settled = anyio.Event()  # ready to serve for the first time, or ended
        self.ended = anyio.Event()
        self.ended_at_unix: float | None = None
        self._around = around
        self._narrator = Narrator("hive", around.hub.publish, node=around.node)
        self._process = WorkerProcess(order, 0, around, self._changed)
        self._restarts_in_a_row = 0
        self._failure: RbeeError | None = None
        self._last_crash: RbeeError | None = None

    @property
    def state(self) -> WorkerState:
        return self._process.state

    @property
    def is_live(self) -> bool:
        """Whether it serves, or will, or is on its way out; also while it waits for its next process."""
        return self.state in LIVE

    @property
    def url(self) -> str | None:
        return self._process.url

    @property
    def report(self) -> StopReport | None:
        """What became of its memory, once it was stopped."""
        return self._process.report

    @property
    def error(self) -> RbeeError | None:
        """Why it failed; while it comes up again, how its last process died."""
        return self._failure or (self._last_crash if self.state in _COMING_UP else None)

    @property
    def has_become_ready(self) -> bool:
        """True only while those are told who hear of the change by which its process came to serve."""
        return self.state is WorkerState.IDLE and self._process.ready_at_s is None

    def record(self) -> WorkerRecord:
        """The wire form, with the worker's key: for the queen only."""
        order, process, said = self.order, self._process, self._process.said
        return WorkerRecord(
            id=order.worker_id,
            url=process.url,
            model_ref=order.model_ref,
            model_id=order.model_id,
            backend=order.backend,
            device=order.device,
            state=process.state,
            pid=process.pid,
            started_at=process.started_at_unix,
            ended_at=self.ended_at_unix,
            restart_count=self.restart_count,
            pinned=order.pinned,
            failed_health_checks=process.monitor.missed_beats,
            last_heartbeat=said.heartbeat_unix,
            last_activity=said.activity_unix,
            slots_total=said.slots_total,
            slots_busy=said.slots_busy,
            memory_bytes=said.resident_bytes,
            memory=said.memory,
            api_key=order.api_key,
            error=self.error.body() if self.error else None,
            last_crash=self._last_crash.body() if self._last_crash else None,
        )

    async def run(self) -> None:
        """Live from the first spawn to the last exit. Never raises; cancelling it kills the worker."""
        correlation_id.set(self.order.correlation_id)
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - one worker must not end its hive; logged and told
            _LOG.exception("worker %s could not be run", self.order.worker_id)
            if self.is_live:
                self._fail(_why_not_run(error))
        finally:
            if self.ended_at_unix is None:
                self.ended_at_unix = time.time()
            self.settled.set()
            self.ended.set()

    async def _live(self) -> None:
        death = await self._process.run()
        while death is not None:
            self.crash_count += 1
            dead_pid = self._process.pid
            if (delay_s := self._delay_s(death)) is None:
                self._fail(death.error)
                await self._look_behind(dead_pid)
                return
            self._begin_again(death.error, delay_s)
            await anyio.to_thread.run_sync(worker_logs.prune_own, self._around.home.logs, self.order.worker_id)
            death = await self._process.run(partial(self._pause, dead_pid, delay_s))
        if self._process.returncode == 0:
            await anyio.to_thread.run_sync(worker_logs.remove, self._around.home.logs, self.order.worker_id)

    async def _pause(self, dead_pid: int | None, delay_s: float) -> None:
        """Between two processes. What the dead one left behind is given time to go: the next one needs that memory."""
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, delay_s)
            await self._look_behind(dead_pid)

    async def _look_behind(self, dead_pid: int | None) -> None:
        if dead_pid is not None:
            await look_behind(self.order.worker_id, dead_pid, self._around.clocks, self._narrator)

    def _delay_s(self, death: Death) -> float | None:
        """Seconds until its next process; None if there is to be none."""
        clocks = self._around.clocks
        self._restarts_in_a_row = restarts_in_a_row(self._restarts_in_a_row, death.served_s, clocks.restart_reset_s)
        chance = random.random()  # noqa: S311 - no secret depends on it
        return restart_delay_s(death, self._restarts_in_a_row, first_s=clocks.restart_delay_s, chance=chance)

    def _begin_again(self, crash: RbeeError, delay_s: float) -> None:
        """The dead process makes room for the next one. No await: nobody sees the worker in between."""
        if self.settled.is_set():
            correlation_id.set(None)  # the request that it was started for is long over
        self._restarts_in_a_row += 1
        self.restart_count += 1
        self._last_crash = crash
        self.order = replace(self.order, api_key=new_secret(), correlation_id=correlation_id.get())
        self._process = WorkerProcess(self.order, self.restart_count, self._around, self._changed)
        again = f"starting it again in {format_seconds(delay_s)}, try {self._restarts_in_a_row} of {MAX_RESTARTS}"
        self._narrator.tell(
            "worker_crashed", f"worker {self.order.worker_id} crashed: {crash.message}; {again}", cute="💥",
            level="warning", code=crash.code, worker_id=self.order.worker_id, restart_count=self.restart_count,
        )  # fmt: skip
        self._changed()

    def _fail(self, error: RbeeError) -> None:
        if self.settled.is_set():
            correlation_id.set(None)
        self._failure = error
        self.ended_at_unix = time.time()
        self._narrator.tell(
            "worker_failed", f"worker {self.order.worker_id} failed: {error.message}", cute="💥",
            level="error", code=error.code, worker_id=self.order.worker_id,
        )  # fmt: skip
        self._process.enter(WorkerSignal.DIED)
        self.settled.set()  # who waits for it is told now, before what it left behind is looked for

    def _changed(self) -> None:
        self._around.changed(self)
        if self.state in SERVING:
            self.settled.set()

    # from outside: what the worker says over HTTP, and orders

    async def heartbeat(self, beat: WorkerHeartbeat) -> None:
        """The worker's own word on its load."""
        await self._process.heartbeat(beat)

    async def ready(self, narrated: int, memory: MemoryParts | None) -> None:
        """The worker says that it can serve; returns when that was looked into."""
        await self._process.ready(narrated, memory)

    def order_stop(self) -> None:
        """Have it stopped; `ended` tells when it is gone. Harmless when it already is or will be."""
        self._process.order_stop()

    def kill(self) -> None:
        """End it at once: there is nobody left to drain for."""
        self._process.kill()


def _why_not_run(error: Exception) -> RbeeError:
    if isinstance(error, RbeeError):
        return error
    return NoCapacityError(f"the worker could not be run: {type(error).__name__}: {error}")
