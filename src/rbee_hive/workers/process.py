"""One process of a worker, from spawn to exit: started, heard, watched, stopped. What follows is decided elsewhere.

Guarantees: it ends with this hive; its death is seen at once and told with its reason; its state changes only through
`domain.worker_state`.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import httpx2

from rbee_hive.domain.workers.death import Exit, is_foreign_kill, why_it_died
from rbee_hive.domain.workers.restart_policy import Death
from rbee_hive.domain.workers.worker_state import LIVE, SERVING, WorkerSignal, activity, advance
from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.memory_probe import WORKER_ID_VARIABLE
from rbee_hive.workers.memory_proof import StopReport, look_before, proof
from rbee_hive.workers.monitor import Monitor
from rbee_hive.workers.oom import OomLedger
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.orphans import noted
from rbee_hive.workers.report import Report
from rbee_shared.child import Child, Command, running
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat, WorkerState
from rbee_shared.errors import LoadingTimeoutError, RbeeError, WorkerCrashedError
from rbee_shared.handshake import Handshake
from rbee_shared.http_client import call
from rbee_shared.narration import Narration, Narrator, correlation_id
from rbee_shared.narration_hub import NarrationHub
from rbee_shared.paths import Home

_LOG = logging.getLogger("rbee.hive.worker")
_HEAR_S = 1.0
_DEVICE_S = 2.0
_READY_PROBES = 3
_READY_PROBE_PAUSE_S = 0.05
_NOT_YET = frozenset({WorkerState.STARTING, WorkerState.LOADING})


@dataclass(frozen=True)
class HiveSide:
    """What the processes of a hive's workers need from it. One for all of them: its ledger is."""

    home: Home
    clocks: Clocks
    hub: NarrationHub
    client: httpx2.AsyncClient
    hive_url: str
    node: str
    ledger: OomLedger = field(default_factory=OomLedger, kw_only=True)
    device_free_bytes: Callable[[str], Awaitable[int | None]] | None = field(default=None, kw_only=True)
    """What a graphics device of that id has free; None where that cannot be told."""


class WorkerProcess:
    """Process `number` of a worker, counted from 0. `changed` is called after every change that others may see."""

    def __init__(self, order: WorkerOrder, number: int, side: HiveSide, changed: Callable[[], None]) -> None:
        self.order = order
        self.state = WorkerState.STARTING
        self.report: StopReport | None = None
        self.said = Report(order.slots or 1, activity_unix=time.time())
        self.started_at_unix = time.time()
        self.ready_at_s: float | None = None
        self.log = worker_logs.log_of(side.home.logs, order.worker_id, number)
        self.monitor = Monitor(side.clocks, self.log, side.ledger)
        self._side = side
        self._changed = changed
        self._narrator = Narrator("hive", side.hub.publish, node=side.node)
        self._child: Child | None = None
        self._verdict: RbeeError | None = None
        self._stop_ordered, self._stop_done = anyio.Event(), anyio.Event()
        self._stop_correlation: str | None = None

    @property
    def url(self) -> str | None:
        listening = self._child.listening if self._child else None
        return listening.url if listening else None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def returncode(self) -> int | None:
        """None also for one that was never spawned."""
        return self._child.returncode if self._child else None

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    async def run(self, first: Callable[[], Awaitable[None]] | None = None) -> Death | None:
        """Live from spawn to exit; None if it ended because that was ordered. Cancelling this kills it.

        `first` goes before the spawn, and is cut short if a stop is ordered meanwhile.

        Raises:
            NoCapacityError: no process can be started.
        """
        if first is not None:
            await self._unless_stopped(first)
        if self._stop_ordered.is_set():
            self.enter(WorkerSignal.EXITED)
            return None
        async with running(
            self._command(), self._handshake(), self._hear, stop_grace_s=self._side.clocks.worker_drain_s
        ) as child:
            self._child = child
            async with noted(self._side.home, self.order.worker_id, child.pid):
                returncode = await self._mind(child)
            if self._stop_ordered.is_set() and self._verdict is None:
                self.enter(WorkerSignal.EXITED)
                return None
            return await self._death(child, returncode)

    async def _mind(self, child: Child) -> int:
        """Watch it, and stop it when that is ordered, until it is dead; its return code."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_when_ordered, child)
            async with anyio.create_task_group() as while_alive:
                while_alive.start_soon(self._watch, child)
                returncode = await child.wait_exit()
                while_alive.cancel_scope.cancel()
            if self._stop_ordered.is_set():
                await self._stop_done.wait()  # every one of its steps is bounded
            group.cancel_scope.cancel()
        return returncode

    async def _death(self, child: Child, returncode: int) -> Death:
        if self.state is WorkerState.STARTING and child.listening is not None:
            self.enter(WorkerSignal.HTTP_UP)  # it died before we looked, and was loading already
        words = await anyio.to_thread.run_sync(worker_logs.last_words, self.log)
        said = self._verdict or child.failure
        oom = None
        if is_foreign_kill(returncode, said):  # any other death would use up the one count that explains another's
            oom = await anyio.to_thread.run_sync(self.monitor.oom_kills)
        end = Exit(returncode, words, oom, self.said.resident_bytes)
        error = why_it_died(self.state, end, said, self.order.model_path)
        served_s = None if self.ready_at_s is None else anyio.current_time() - self.ready_at_s
        return Death(error, returncode, served_s, ordered=self._stop_ordered.is_set())

    def _command(self) -> Command:
        env = {**self.order.extra_env, WORKER_ID_VARIABLE: self.order.worker_id}
        return Command(self.order.argv(self._side.hive_url), self.log, env)

    def _handshake(self) -> Handshake:
        return Handshake.from_here(
            api_key=self.order.api_key, hive_url=self._side.hive_url, correlation_id=self.order.correlation_id
        )

    def _hear(self, narration: Narration) -> None:
        self.monitor.hear()
        self._side.hub.publish(narration.on_node(self._side.node))

    # from outside: what the worker says over HTTP, and orders

    async def heartbeat(self, beat: WorkerHeartbeat) -> None:
        """Take the worker's own word on its load; a worker that calls itself idle is asked whether it is ready."""
        self.monitor.feel(beat)
        self.said.take(beat)
        if beat.state in SERVING and self.state in _NOT_YET:
            await self.ready(beat.narrated, beat.memory)
        busy = max(beat.slots_busy, int(beat.state is WorkerState.BUSY))
        was_busy = self.said.slots_busy
        if self.state in SERVING:
            self.said.slots_busy = busy
        if (signal := activity(self.state, busy)) is not None:
            self.said.activity_unix = time.time()
            self.enter(signal)
        elif self.said.slots_busy != was_busy:
            self._changed()

    async def ready(self, narrated: int, memory: MemoryParts | None) -> None:
        """The worker says it has decoded a token: hear what it said before, ask it once, then believe it."""
        self.said.memory = memory or self.said.memory
        child = self._child
        if child is None or self.state not in _NOT_YET:
            return
        await child.wait_heard(narrated, _HEAR_S)
        with anyio.move_on_after(_HEAR_S):
            await child.wait_listening(_HEAR_S)
        if not await self._answers_ready() or self.state not in _NOT_YET or child.returncode is not None:
            return
        self.said.activity_unix = time.time()
        if self.state is WorkerState.STARTING:  # the task that waits for its port has not run yet
            self.enter(WorkerSignal.HTTP_UP)
        self.enter(WorkerSignal.READY)
        self.ready_at_s = anyio.current_time()

    def order_stop(self) -> None:
        """Have it stopped. Harmless when it already is or will be."""
        if self.is_live and not self._stop_ordered.is_set():
            self._stop_correlation = correlation_id.get()
            self.enter(WorkerSignal.STOP)
            self._stop_ordered.set()

    def kill(self) -> None:
        """End it at once: there is nobody left to drain for."""
        if self.is_live:
            self.enter(WorkerSignal.STOP)
        self._stop_ordered.set()
        if self._child is not None:
            self._child.kill()

    def enter(self, signal: WorkerSignal) -> None:
        """Move to the state that follows."""
        self.state = advance(self.state, signal)
        if not self.is_live:
            self.said.slots_busy = 0
        self._changed()

    # watching

    async def _watch(self, child: Child) -> None:
        await self.monitor.begin(child.pid)
        try:
            await child.wait_listening(self._side.clocks.worker_bind_s)
        except RbeeError as error:
            if child.returncode is None:
                self._condemn(child, LoadingTimeoutError(f"the worker opened no port: {error.message}"))
            return
        if self.state is WorkerState.STARTING:
            self.enter(WorkerSignal.HTTP_UP)
        self._condemn(child, await self.monitor.first_fault(lambda: self.state))

    def _condemn(self, child: Child, error: RbeeError) -> None:
        self._verdict = error
        child.kill()

    async def _answers_ready(self) -> bool:
        for _ in range(_READY_PROBES):
            try:
                await self._ask("GET", "/v1/ready")
            except RbeeError as error:
                _LOG.warning("worker %s says it is ready and does not answer so: %s", self.order.worker_id, error)
                await anyio.sleep(_READY_PROBE_PAUSE_S)
            else:
                return True
        return False

    # stopping

    async def _unless_stopped(self, work: Callable[[], Awaitable[None]]) -> None:
        async def cut_short(scope: anyio.CancelScope) -> None:
            await self._stop_ordered.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cut_short, group.cancel_scope)
            await work()
            group.cancel_scope.cancel()

    async def _stop_when_ordered(self, child: Child) -> None:
        await self._stop_ordered.wait()
        correlation_id.set(self._stop_correlation)  # from here on it works for whoever ordered this
        before = await look_before(self.order.worker_id, child.pid, self._device_free_bytes)
        with anyio.move_on_after(self._side.clocks.worker_drain_s):
            await self._ask_to_go(child)
            await child.wait_exit()
        if child.returncode is None:
            _LOG.warning("worker %s does not go: ending it", self.order.worker_id)
            await child.terminate(self._side.clocks.worker_drain_s / 5)
        with anyio.move_on_after(_HEAR_S):
            await child.wait_exit()  # its last lines
        self.report = await proof(before, self._side.clocks, self._narrator, self._device_free_bytes)
        self._stop_done.set()

    async def _device_free_bytes(self) -> int | None:
        """Of the graphics device that it runs on; None where there is none, or where that cannot be told soon."""
        ask = self._side.device_free_bytes
        if ask is None or self.order.runs_on[0] == "cpu":
            return None
        with anyio.move_on_after(_DEVICE_S):
            try:
                return await ask(self.order.device)
            except RbeeError as error:
                _LOG.info("%s does not tell what it has free: %s", self.order.device, error)
        return None

    async def _ask_to_go(self, child: Child) -> None:
        if self.url is None:
            child.close_stdin()
            return
        try:
            await self._ask("POST", "/shutdown")
        except RbeeError as error:
            _LOG.warning("worker %s cannot be asked to go: %s", self.order.worker_id, error)
            child.close_stdin()

    async def _ask(self, method: str, path: str) -> None:
        await call(
            self._side.client, method, f"{self.url}{path}", token=self.order.api_key, unreachable=WorkerCrashedError
        )
