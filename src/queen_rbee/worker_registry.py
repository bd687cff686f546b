"""The queen's routing view of every worker: rebuilt from the hives' heartbeats, plus the slots she has promised.

All methods are synchronous: nothing can happen between a look and the promise that depends on it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import anyio

from queen_rbee.domain.facts import WorkerFacts
from rbee_shared.contracts.workers import WorkerRecord, WorkerState, WorkerView
from rbee_shared.errors import RbeeError, WorkerCrashedError, error_from_body


@dataclass
class _Entry:
    node: str
    record: WorkerRecord
    promised: set[str] = field(default_factory=set)


class WorkerRegistry:
    """Workers by id. `changed` is called after every change that could let a waiting task go on."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._entries: dict[str, _Entry] = {}
        self._tell = changed
        self._change = anyio.Event()

    async def next_change(self) -> None:
        """Return when anything about any worker changes."""
        await self._change.wait()

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()
        self._tell()

    def update(self, node: str, records: Iterable[WorkerRecord]) -> None:
        """Take a hive's whole list: what it no longer lists is gone."""
        listed = {record.id: record for record in records}
        for worker_id, record in listed.items():
            if worker_id in self._entries:
                self._entries[worker_id].record = record
            else:
                self._entries[worker_id] = _Entry(node, record)
        for worker_id in [id_ for id_, entry in self._entries.items() if entry.node == node and id_ not in listed]:
            if not self._entries[worker_id].promised:
                del self._entries[worker_id]
            else:
                self._mark_gone(worker_id)
        self._changed()

    def put(self, node: str, record: WorkerRecord, *, promised_to: str | None = None) -> None:
        """Take one record, before a heartbeat lists it; with a slot of it promised before anybody else may look."""
        entry = self._entries.setdefault(record.id, _Entry(node, record))
        entry.record = record
        if promised_to is not None:
            entry.promised.add(promised_to)
        self._changed()

    def forget_node(self, node: str) -> None:
        """That hive is gone, and so are its workers."""
        for worker_id in [id_ for id_, entry in self._entries.items() if entry.node == node]:
            del self._entries[worker_id]
        self._changed()

    def promise(self, worker_id: str, task_id: str) -> None:
        """Keep one of the worker's slots for the task."""
        if (entry := self._entries.get(worker_id)) is not None:
            entry.promised.add(task_id)

    def release(self, task_id: str) -> None:
        """The task needs its slot no longer, if it had one."""
        for entry in self._entries.values():
            entry.promised.discard(task_id)
        self._changed()

    def get(self, worker_id: str) -> WorkerRecord | None:
        entry = self._entries.get(worker_id)
        return entry.record if entry else None

    def node_of(self, worker_id: str) -> str | None:
        entry = self._entries.get(worker_id)
        return entry.node if entry else None

    def failure_of(self, worker_id: str) -> RbeeError | None:
        """Why the worker can no longer serve; None while it can or may yet."""
        record = self.get(worker_id)
        if record is None:
            return WorkerCrashedError(f"worker {worker_id} is gone")
        if record.state is WorkerState.FAILED:
            return error_from_body(record.error or {"code": "WORKER_CRASHED", "message": f"worker {worker_id} died"})
        if record.state in {WorkerState.STOPPED, WorkerState.DRAINING}:
            return WorkerCrashedError(f"worker {worker_id} was stopped")
        return None

    def facts(self) -> tuple[WorkerFacts, ...]:
        """For the scheduler, ordered by id."""
        return tuple(
            WorkerFacts(
                id=worker_id,
                node=entry.node,
                model_ref=entry.record.model_ref,
                backend=entry.record.backend,
                device=entry.record.device,
                state=entry.record.state,
                slots_free=_slots_free(entry),
                idle_since_s=entry.record.last_activity,
            )
            for worker_id, entry in sorted(self._entries.items())
        )

    def views(self) -> tuple[WorkerView, ...]:
        """For people and applications, ordered by id; a stopped one is no longer of interest."""
        return tuple(
            WorkerView(
                id=worker_id,
                url=entry.record.url,
                model_ref=entry.record.model_ref,
                backend=entry.record.backend,
                device=entry.record.device,
                state=WorkerState.BUSY if _busy(entry) else entry.record.state,
                node_name=entry.node,
                slots_total=entry.record.slots_total,
                slots_available=_slots_free(entry),
                vram_bytes=entry.record.memory_bytes,
            )
            for worker_id, entry in sorted(self._entries.items())
            if entry.record.state is not WorkerState.STOPPED
        )

    def _mark_gone(self, worker_id: str) -> None:
        entry = self._entries[worker_id]
        entry.record = entry.record.model_copy(update={"state": WorkerState.STOPPED})


def _slots_free(entry: _Entry) -> int:
    return max(0, entry.record.slots_total - len(entry.promised))


def _busy(entry: _Entry) -> bool:
    return bool(entry.promised) and entry.record.state is WorkerState.IDLE
