"""Starts the worker that a task needs: the model known to its hive, room for it, the process, its readiness."""

from dataclasses import dataclass, replace

import anyio
from anyio.abc import TaskGroup

from queen_rbee.domain.scheduler import SpawnWorker
from queen_rbee.hive_client import HiveClient
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.supplies import Supplies
from queen_rbee.task import Task
from queen_rbee.worker_client import WorkerClient
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.models import ModelRow
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import LoadingTimeoutError, ModelNotFoundError, RbeeError, RequestTimeoutError
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.units import format_bytes

_READY = frozenset({WorkerState.IDLE, WorkerState.BUSY})
_FETCHED = frozenset({"hf", "url"})
_NAMED = 20
_HUB_TRIES = 8


@dataclass(frozen=True)
class WorkerStarter:
    """Orders workers from hives and waits for them."""

    clocks: Clocks
    contacts: HiveContacts
    matchmaker: Matchmaker
    worker: WorkerClient
    supplies: Supplies

    async def require_model(self, entry: HiveEntry, task: Task, *, trusted: bool) -> None:
        """Make sure the hive knows the model or can fetch it; let the task's wish name it as the hive does.

        `trusted`: a `file:` reference may name any file of that machine, not only those under its model directory.

        Raises:
            ModelNotFoundError, ModelInvalidError, ForbiddenError: it does not, or may not.
        """
        if any(
            (facts.node, facts.model_ref) == (entry.node, task.wish.model_ref)
            for facts in self.matchmaker.workers.facts()
        ):
            return  # it is loaded there already
        hive = self.contacts.client_of(entry)
        row = await self._find_model(hive, task.wish.model_ref, trusted=trusted)
        if row is not None and row.is_downloaded:
            task.wish = replace(task.wish, model_ref=row.canonical_ref)

    async def _find_model(self, hive: HiveClient, model_ref: str, *, trusted: bool) -> ModelRow | None:
        """Its row; None where there is none yet and the model can be fetched."""
        reference = parse_model_ref(model_ref)
        if reference.provider == "file":
            # asked every time: the file may have gone or changed since it was catalogued
            return await hive.import_model(reference.reference, anywhere=trusted)
        row = await hive.find_model(model_ref)
        if row is None and reference.provider not in _FETCHED:
            known = ", ".join(sorted(await hive.model_ids())[:_NAMED])
            raise ModelNotFoundError(f"there is no model {model_ref!r} on that node; it has: {known}")
        return row

    async def start(self, entry: HiveEntry, task: Task, placement: SpawnWorker) -> str:
        """Start a worker for the task and return its id when it is ready; one slot of it is promised to the task.

        Raises:
            RbeeError: no room, a model that cannot be fetched or loaded, a worker that does not start. Tasks that
                waited for the same load get the same error.
        """
        try:
            worker_id = await self._start(entry, task, placement)
        except RbeeError as error:
            self.matchmaker.load_failed(task, error)
            raise
        finally:
            self.matchmaker.load_done(task)
        return worker_id

    async def _start(self, entry: HiveEntry, task: Task, placement: SpawnWorker) -> str:
        tell, device = task.narrator, placement.device
        tell.tell("pick", f"picked {device.id.upper()} on {device.node}: {placement.reason}", cute="🎯")
        hive = self.contacts.client_of(entry)
        await self._require_room(hive, task, placement)
        await self.supplies.gather(hive, task, placement.device)
        task.now(f"starting a {device.backend} worker")
        worker_id = await self._order(entry, task, placement)
        tell.tell("worker_registered", "worker registered, waiting for its heartbeat", cute="📝")
        await self._until_ready(task, worker_id)
        tell.tell("worker_ready", f"{device.backend} worker is awake and ready", cute="🌞")
        return worker_id

    async def _require_room(self, hive: HiveClient, task: Task, placement: SpawnWorker) -> None:
        tell, device, label = task.narrator, placement.device, placement.device.id.upper()
        task.now("asking the hive for room")
        tell.tell("ask_room", f"asking hive if there is room on {label}", cute="❓")
        patience_s = self.clocks.hub_s * _HUB_TRIES  # the hive's own patience with the Hub runs out first
        room = await hive.capacity(device.id, task.wish.model_ref, patience_s=patience_s)
        free_bytes = max(0, room.free_bytes - room.promised_bytes)
        tell.tell(
            "room",
            f"there is room on {label} for {task.asked_model} "
            f"(needs {format_bytes(room.required_bytes)}, {format_bytes(free_bytes)} free)",
            cute="✅",
            **room.model_dump(),
        )
        task.receipt |= {"capacity": room.model_dump()}

    async def _order(self, entry: HiveEntry, task: Task, placement: SpawnWorker) -> str:
        """Order the worker and register it, in one piece.

        A task cancelled in between would leave a worker that nobody knows of, and the next task would order another.
        """
        hive, device = self.contacts.client_of(entry), placement.device
        with anyio.move_on_after(self.clocks.control_call_s, shield=True):
            answer = await hive.spawn(
                model=task.wish.model_ref, backend=device.backend, device=device.id, request_id=task.id
            )
            self._register(entry, task, placement, answer.worker_id)
            return answer.worker_id
        raise RequestTimeoutError(f"the hive at {entry.node} did not answer the order to start a worker")

    def _register(self, entry: HiveEntry, task: Task, placement: SpawnWorker, worker_id: str) -> None:
        workers = self.matchmaker.workers
        record = workers.get(worker_id)
        if record is None:
            record = WorkerRecord(
                id=worker_id,
                url=None,
                model_ref=task.wish.model_ref,
                backend=placement.device.backend,
                device=placement.device.id,
                state=WorkerState.STARTING,
                pid=None,
                started_at=0.0,
                last_activity=0.0,
            )
        workers.put(entry.node, record, promised_to=task.id)

    async def _until_ready(self, task: Task, worker_id: str) -> None:
        limit_s = self.clocks.worker_bind_s + self.clocks.load_stall_s * 2  # the hive's own clocks run out first
        with anyio.move_on_after(limit_s):
            async with anyio.create_task_group() as group:
                failure = await self._ready_or_failed(task, worker_id, group)
                group.cancel_scope.cancel()
            if failure is not None:
                raise failure
            return
        raise LoadingTimeoutError(f"worker {worker_id} was not ready within {limit_s:.0f} s")

    async def _ready_or_failed(self, task: Task, worker_id: str, group: TaskGroup) -> RbeeError | None:
        """None when it is ready; meanwhile its progress is shown."""
        workers = self.matchmaker.workers
        progress_shown = False
        while not self._is_ready(record := workers.get(worker_id)):
            if (failure := workers.failure_of(worker_id)) is not None:
                return failure
            if record is not None and record.url is not None and not progress_shown:
                progress_shown = True
                task.now("loading the model")
                group.start_soon(self.worker.relay_progress, record, task)
            await workers.next_change()
        return None

    @staticmethod
    def _is_ready(record: WorkerRecord | None) -> bool:
        return record is not None and record.state in _READY and record.url is not None
