"""One task from submit to end: find its hive, its place and its worker, relay the answer, give the slot back.

Every way out goes through `Task.complete` or `Task.fail`, so each stream has exactly one last event.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
from anyio.abc import TaskGroup

from queen_rbee.domain.admission import admit
from queen_rbee.domain.facts import Wish
from queen_rbee.domain.nodes.node import LOCAL_NODE
from queen_rbee.domain.scheduler import UseWorker
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.settings import QueenSettings
from queen_rbee.silence import break_silence
from queen_rbee.task import Task
from queen_rbee.task_registry import TaskRegistry
from queen_rbee.worker_client import WorkerClient, execute_body
from queen_rbee.worker_starter import WorkerStarter
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import TaskRequest, TaskState
from rbee_shared.error_groups import first_error
from rbee_shared.errors import (
    CancelledTaskError,
    InternalError,
    NotSupportedError,
    RbeeError,
    ShuttingDownError,
    WorkerCrashedError,
)
from rbee_shared.hive_advice import told_from_afar
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.narration import Narrator, Sink, correlation_id

_LOG = logging.getLogger("rbee.queen.dispatcher")
_CANCEL_GRACE_S = 2.0


@dataclass
class Dispatcher:
    """Takes tasks and sees each through. `group` is where they run."""

    settings: QueenSettings
    clocks: Clocks
    tasks: TaskRegistry
    matchmaker: Matchmaker
    lifecycle: HiveLifecycle
    starter: WorkerStarter
    worker: WorkerClient
    publish: Sink
    group: TaskGroup
    closed: bool = False

    async def submit(self, request: TaskRequest, *, attached: bool, trusted: bool) -> Task:
        """Admit a task and start on it. `trusted`: the caller showed the cluster's token.

        Raises:
            ShuttingDownError, NotSupportedError, NodeNotFoundError, InvalidRequestError, QueueFullError: refused.
        """
        if self.closed:
            raise ShuttingDownError("the queen is shutting down")
        node = await self.lifecycle.directory.look_up(request.node) if request.node else None
        wish = _wish_of(request, node.name if node is not None else None)
        admit(
            wish.model_ref,
            self.tasks.waiting_models(),
            per_model=self.settings.queue_per_model,
            in_all=self.settings.queue_in_all,
        )
        correlation = correlation_id.get() or ""
        task = Task(wish, correlation=correlation, sink=self.publish, attached=attached)
        self.tasks.add(task)
        if request.unknown_fields:
            names = ", ".join(request.unknown_fields)
            task.narrator.tell("unknown_fields", f"ignoring unknown fields: {names}", cute="🤷", level="warning")
        self.group.start_soon(self._run, task, request, trusted)
        return task

    def attend(self, task: Task) -> Callable[[], None]:
        """Somebody waits for the answer, until the returned function is called; an attached task ends with the last."""
        follower = object()
        task.followers.add(follower)

        def leave() -> None:
            task.followers.discard(follower)
            if task.attached and not task.followers:
                self.cancel(task, "its reader hung up")

        return leave

    def cancel(self, task: Task, why: str) -> None:
        """End a task early; harmless when it has ended. `task.finished` says when its last event is written."""
        if task.is_finished or task.cancel_requested:
            return
        task.cancel_requested = True
        task.narrator.tell("cancel", f"cancelling: {why}", cute="✋")
        if task.has_started and task.worker_id is not None and not task.is_interrupted:
            # asked this way the worker says how far it came; it stops within one token
            self.group.start_soon(self._cancel_on_worker, task)
        else:
            task.scope.cancel()

    async def _cancel_on_worker(self, task: Task) -> None:
        record = self.matchmaker.workers.get(task.worker_id or "")
        with anyio.move_on_after(_CANCEL_GRACE_S):
            try:
                if record is not None:
                    await self.worker.cancel(record, task.id)
                await task.finished.wait()
            except RbeeError as error:
                _LOG.info("the worker of %s does not take the cancel: %s", task.id, error)
        task.scope.cancel()

    def abandon_waiting(self) -> None:
        """Shutting down: take nothing new, fail what has not begun; what runs is drained by the workers."""
        self.closed = True
        for task in list(self.tasks.unfinished()):
            if not task.has_started or task.is_interrupted:
                self.give_up(task)

    def give_up(self, task: Task) -> None:
        """Shutting down, and the drain is over: end a task that still runs."""
        task.fail(ShuttingDownError("the queen shut down before the answer was complete"))
        task.scope.cancel()

    async def _run(self, task: Task, request: TaskRequest, trusted: bool) -> None:  # noqa: FBT001 - by start_soon
        correlation_id.set(task.correlation_id)
        with task.scope:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(break_silence, task, self.clocks.silence_s)
                    await self._serve(task, request, trusted=trusted)
                    group.cancel_scope.cancel()
            except* RbeeError as errors:
                task.fail(_in_words_of_the_asker(first_error(errors), task.wish))
            except* Exception as errors:  # noqa: BLE001 - the queen must live on; it is told and logged
                _LOG.exception("task %s failed", task.id)
                task.fail(InternalError(f"the queen failed: {first_error(errors)!r}"))
        if not task.is_finished:
            task.fail(CancelledTaskError("the task was cancelled"))

    async def _serve(self, task: Task, request: TaskRequest, *, trusted: bool) -> None:
        task.enter(TaskState.PREPARING, "preparing")
        with self.matchmaker.in_line(task) as waiting:
            entry = await self._hive_for(task)
            await self.starter.require_model(entry, task, trusted=trusted)
            placement = await self.matchmaker.placement(waiting)
            task.receipt = {"node": entry.node, "reason": placement.reason}
            if isinstance(placement, UseWorker):
                worker_id, decision = placement.worker_id, "use_worker"
            else:
                worker_id, decision = await self.starter.start(entry, task, placement), "start_worker"
            task.worker_id = worker_id
            task.receipt |= {"decision": decision, "worker_id": worker_id}
            await self._execute(task, request, worker_id, task.narrator)

    async def _hive_for(self, task: Task) -> HiveEntry:
        """The hive of the node that the task names, or of the best one that can be had.

        Raises:
            RbeeError: it cannot be had; of several, why the first one cannot.
        """
        if task.wish.node is not None:
            return await self.lifecycle.ensure(task.wish.node, task.narrator, task.now)
        failure: RbeeError | None = None
        for candidate in await self.lifecycle.candidates(task.wish, self.matchmaker.workers.facts()):
            if candidate.name != LOCAL_NODE or failure is not None:
                task.narrator.tell("pick_node", f"going to {candidate.name}: {candidate.reason}", cute="🧭")
            try:
                entry = await self.lifecycle.ensure(candidate.name, task.narrator, task.now)
            except RbeeError as error:
                failure = failure or error
                task.narrator.tell(
                    "node_failed", f"{candidate.name} cannot be had: {error.message} ({error.code})", level="warning"
                )
            else:
                task.wish = replace(task.wish, node=entry.node)
                return entry
        assert failure is not None
        raise failure

    async def _execute(self, task: Task, request: TaskRequest, worker_id: str, tell: Narrator) -> None:
        record = self.matchmaker.workers.get(worker_id)
        if record is None or record.url is None or record.api_key is None:
            raise self.matchmaker.workers.failure_of(worker_id) or WorkerCrashedError(f"worker {worker_id} is gone")
        task.receipt |= {"device": record.device, "backend": record.backend}
        node = self.matchmaker.workers.node_of(worker_id)
        assert node is not None  # it has a record
        tell.tell("execute", "connection to worker established; starting inference", cute="🚀")
        task.now("waiting for the first token")
        await self.worker.execute(task, record, node, execute_body(request, task.id))


def _in_words_of_the_asker(error: RbeeError, wish: Wish) -> RbeeError:
    """Who asks the queen is at the keeper, not where the hive is."""
    return error if wish.node is None else told_from_afar(error, wish.node)


def _wish_of(request: TaskRequest, node: str | None) -> Wish:
    """What the request asks the scheduler for; the form is checked here, before the first byte."""
    if request.unbuilt_fields:
        raise NotSupportedError(f"this version does not do: {', '.join(request.unbuilt_fields)}")
    reference = parse_model_ref(request.chosen_model)
    return Wish(str(reference), node, request.backend, request.device)
