"""One worker, from spawn to the proof that its memory is free again.

Guarantees: it ends with this hive; a death that nobody ordered is seen at once and told with its reason; nothing it
does ends the hive. Its state changes only through `domain.worker_state`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread
import httpx2

from rbee_hive import memory_probe
from rbee_hive.domain.death import why_it_died
from rbee_hive.domain.worker_state import LIVE, SERVING, WorkerSignal, activity, advance
from rbee_hive.memory_proof import StopReport, proof
from rbee_hive.worker_order import WorkerOrder
from rbee_shared.child import Child, Command, running
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat, WorkerRecord, WorkerState
from rbee_shared.errors import LoadingTimeoutError, NoCapacityError, RbeeError, WorkerCrashedError
from rbee_shared.handshake import Handshake
from rbee_shared.http_client import call
from rbee_shared.narration import Narration, Narrator, correlation_id
from rbee_shared.narration_hub import NarrationHub
from rbee_shared.paths import Home

_LOG = logging.getLogger("rbee.hive.worker")
_HEAR_S = 1.0
_READY_PROBES = 3
_READY_PROBE_PAUSE_S = 0.05


@dataclass(frozen=True)
class Surroundings:
    """What every worker of a hive needs from it. `changed` is called after every change of state."""

    home: Home
    clocks: Clocks
    hub: NarrationHub
    client: httpx2.AsyncClient
    hive_url: str
    node: str
    changed: Callable[["Worker"], None]


class Worker:
    """A worker process and what is known of it."""

    def __init__(self, order: WorkerOrder, around: Surroundings) -> None:
        self.order = order
        self.state = WorkerState.STARTING
        self.error: RbeeError | None = None
        self.report: StopReport | None = None
        self.settled = anyio.Event()  # ready to serve, or ended
        self.ended = anyio.Event()
        self.ended_at_unix: float | None = None
        self._around = around
        self._narrator = Narrator("hive", around.hub.publish, node=around.node)
        self._child: Child | None = None
        self._verdict: RbeeError | None = None
        self._stop_ordered, self._stop_done = anyio.Event(), anyio.Event()
        self._stop_correlation: str | None = None
        self._started_at_unix = self._last_activity_unix = time.time()
        self._last_heartbeat_unix: float | None = None
        self._heard_at_s = self._progress_at_s = anyio.current_time()
        self._load_done = 0
        self._missed = 0
        self._slots_total, self._slots_busy = order.slots or 1, 0
        self._memory_bytes: int | None = None
        self._memory: MemoryParts | None = None

    @property
    def url(self) -> str | None:
        listening = self._child.listening if self._child else None
        return listening.url if listening else None

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    def record(self) -> WorkerRecord:
        """The wire form, with the worker's key: for the queen only."""
        return WorkerRecord(
            id=self.order.worker_id,
            url=self.url,
            model_ref=self.order.model_ref,
            backend=self.order.backend,
            device=self.order.device,
            state=self.state,
            pid=self._child.pid if self._child else None,
            started_at=self._started_at_unix,
            failed_health_checks=self._missed,
            last_heartbeat=self._last_heartbeat_unix,
            last_activity=self._last_activity_unix,
            slots_total=self._slots_total,
            slots_busy=self._slots_busy,
            memory_bytes=self._memory_bytes,
            memory=self._memory,
            api_key=self.order.api_key,
            error=self.error.body() if self.error else None,
        )

    async def run(self) -> None:
        """Live from spawn to exit. Never raises; cancelling it kills the worker."""
        correlation_id.set(self.order.correlation_id)
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - one worker must not end its hive; logged and told
            _LOG.exception("worker %s could not be run", self.order.worker_id)
            self.error = NoCapacityError(f"the worker could not be run: {type(error).__name__}: {error}")
            if self.is_live:
                self._enter(WorkerSignal.DIED)
        finally:
            self.ended_at_unix = time.time()
            self.settled.set()
            self.ended.set()

    async def _live(self) -> None:
        stderr = self._around.home.logs / f"{self.order.worker_id}.err"
        handshake = Handshake.from_here(
            api_key=self.order.api_key, hive_url=self._around.hive_url, correlation_id=self.order.correlation_id
        )
        command = Command(
            self.order.argv(self._around.hive_url), stderr, {memory_probe.WORKER_ID_VARIABLE: self.order.worker_id}
        )
        async with running(command, handshake, self._hear, stop_grace_s=self._around.clocks.worker_drain_s) as child:
            self._child = child
            async with anyio.create_task_group() as group:
                group.start_soon(self._stop_when_ordered, child)
                async with anyio.create_task_group() as while_alive:
                    while_alive.start_soon(self._watch, child)
                    returncode = await child.wait_exit()
                    while_alive.cancel_scope.cancel()
                if self._stop_ordered.is_set():
                    await self._stop_done.wait()  # every one of its steps is bounded
                group.cancel_scope.cancel()
            if self._stop_ordered.is_set() and self._verdict is None:
                self._enter(WorkerSignal.EXITED)
            else:
                await self._tell_death(child, returncode)
        if self.state is WorkerState.STOPPED and returncode == 0:
            await anyio.Path(stderr).unlink(missing_ok=True)

    def _hear(self, narration: Narration) -> None:
        self._heard_at_s = anyio.current_time()
        self._around.hub.publish(narration.on_node(self._around.node))

    # from outside: what the worker says over HTTP, and orders

    async def heartbeat(self, beat: WorkerHeartbeat) -> None:
        """Take the worker's own word on its load; a worker that calls itself idle is asked whether it is ready."""
        self._heard_at_s, self._missed = anyio.current_time(), 0
        self._last_heartbeat_unix = time.time()
        if beat.load_done is not None and beat.load_done != self._load_done:
            self._load_done, self._progress_at_s = beat.load_done, self._heard_at_s
        self._slots_total, self._memory_bytes = beat.slots_total, beat.rss_bytes or self._memory_bytes
        self._memory = beat.memory or self._memory
        if beat.state in SERVING and self.state in {WorkerState.STARTING, WorkerState.LOADING}:
            await self.ready(beat.narrated, beat.memory)
        if beat.last_activity is not None:
            self._last_activity_unix = max(self._last_activity_unix, beat.last_activity)
        busy = max(beat.slots_busy, int(beat.state is WorkerState.BUSY))
        if (signal := activity(self.state, busy)) is not None:
            self._last_activity_unix = time.time()
            self._slots_busy = busy
            self._enter(signal)
        elif self.state in SERVING and busy != self._slots_busy:
            self._slots_busy = busy
            self._around.changed(self)

    async def ready(self, narrated: int, memory: MemoryParts | None) -> None:
        """The worker says it has decoded a token: hear what it said before, ask it once, then believe it."""
        child, self._memory = self._child, memory or self._memory
        if child is None or self.state not in {WorkerState.STARTING, WorkerState.LOADING}:
            return
        await child.wait_heard(narrated, _HEAR_S)
        with anyio.move_on_after(_HEAR_S):
            await child.wait_listening(_HEAR_S)
        if not await self._answers_ready() or self.state not in {WorkerState.STARTING, WorkerState.LOADING}:
            return
        self._last_activity_unix = time.time()
        if self.state is WorkerState.STARTING:  # the task that waits for its port has not run yet
            self._enter(WorkerSignal.HTTP_UP)
        self._enter(WorkerSignal.READY)
        self.settled.set()

    def order_stop(self) -> None:
        """Have it stopped; `ended` tells when it is gone. Harmless when it already is or will be."""
        if self.is_live and not self._stop_ordered.is_set():
            self._stop_correlation = correlation_id.get()
            self._enter(WorkerSignal.STOP)
            self._stop_ordered.set()

    def kill(self) -> None:
        """End it at once: there is nobody left to drain for."""
        if self.is_live:
            self._enter(WorkerSignal.STOP)
        self._stop_ordered.set()
        if self._child is not None:
            self._child.kill()

    # watching

    async def _watch(self, child: Child) -> None:
        try:
            await child.wait_listening(self._around.clocks.worker_bind_s)
        except RbeeError as error:
            if child.returncode is None:
                self._condemn(child, LoadingTimeoutError(f"the worker opened no port: {error.message}"))
            return
        if self.state is WorkerState.STARTING:
            self._enter(WorkerSignal.HTTP_UP)
        self._heard_at_s = self._progress_at_s = anyio.current_time()
        while (fault := self._fault()) is None:
            await anyio.sleep(self._around.clocks.heartbeat_s)
            self._missed += 1  # a heartbeat sets it back
        self._condemn(child, fault)

    def _fault(self) -> RbeeError | None:
        """What is wrong with it now, by the clocks."""
        now_s, clocks = anyio.current_time(), self._around.clocks
        if self.state is WorkerState.LOADING and now_s - self._progress_at_s > clocks.load_stall_s:
            return LoadingTimeoutError(
                f"no progress for {clocks.load_stall_s:.0f} s while loading {self.order.model_path}",
                details={"load_done_per_mille": self._load_done},
            )
        if self.state is not WorkerState.DRAINING and now_s - self._heard_at_s > clocks.lost_s:
            return WorkerCrashedError(f"no heartbeat came from the worker for {clocks.lost_s:.0f} s: it was killed")
        return None

    def _condemn(self, child: Child, error: RbeeError) -> None:
        self._verdict = error
        child.kill()

    async def _answers_ready(self) -> bool:
        for _ in range(_READY_PROBES):
            try:
                await call(
                    self._around.client, "GET", f"{self.url}/v1/ready",
                    token=self.order.api_key, unreachable=WorkerCrashedError,
                )  # fmt: skip
            except RbeeError as error:
                _LOG.warning("worker %s says it is ready and does not answer so: %s", self.order.worker_id, error)
                await anyio.sleep(_READY_PROBE_PAUSE_S)
            else:
                return True
        return False

    async def _tell_death(self, child: Child, returncode: int) -> None:
        if self.settled.is_set():
            correlation_id.set(None)  # the request that it was started for is long over
        words = await anyio.to_thread.run_sync(child.last_words)
        said = self._verdict or child.failure
        self.error = why_it_died(self.state, returncode, said, words, self.order.model_path)
        self._narrator.tell(
            "worker_failed", f"worker {self.order.worker_id} failed: {self.error.message}", cute="💥",
            level="error", code=self.error.code, worker_id=self.order.worker_id,
        )  # fmt: skip
        self._enter(WorkerSignal.DIED)

    # stopping

    async def _stop_when_ordered(self, child: Child) -> None:
        await self._stop_ordered.wait()
        correlation_id.set(self._stop_correlation)  # from here on it works for whoever ordered this
        before = await anyio.to_thread.run_sync(memory_probe.measure_before, self.order.worker_id, child.pid)
        with anyio.move_on_after(self._around.clocks.worker_drain_s):
            await self._ask_to_go(child)
            await child.wait_exit()
        if child.returncode is None:
            _LOG.warning("worker %s does not go: ending it", self.order.worker_id)
            await child.terminate(self._around.clocks.worker_drain_s / 5)
        with anyio.move_on_after(_HEAR_S):
            await child.wait_exit()  # its last lines
        self.report = await proof(before, self._around.clocks, self._narrator)
        self._stop_done.set()

    async def _ask_to_go(self, child: Child) -> None:
        if self.url is None:
            child.close_stdin()
            return
        try:
            await call(
                self._around.client, "POST", f"{self.url}/shutdown",
                token=self.order.api_key, unreachable=WorkerCrashedError,
            )  # fmt: skip
        except RbeeError as error:
            _LOG.warning("worker %s cannot be asked to go: %s", self.order.worker_id, error)
            child.close_stdin()

    def _enter(self, signal: WorkerSignal) -> None:
        self.state = advance(self.state, signal)
        if not self.is_live:
            self._slots_busy = 0
        self._around.changed(self)
