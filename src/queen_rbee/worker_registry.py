"""The queen's routing view of every worker: rebuilt from the hives' heartbeats, plus the slots she has promised.

All methods are synchronous: nothing can happen between a look and the promise that depends on it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from queen_rbee.domain.facts import WorkerFacts
from rbee_shared.contracts.workers import WorkerRecord, WorkerState, WorkerView
from rbee_shared.errors import RbeeError, WorkerCrashedError, error_from_body

_LOG = logging.getLogger("rbee.queen.workers")


@dataclass
class _Entry:
    """`missing_lists`: how many of its hive's lists have left it out, as long as none has named it."""

    node: str
    record: WorkerRecord
    promised: set[str] = field(default_factory=set)
    listed: bool = False
    missing_lists: int = 0
    retired: bool = False
    gone: RbeeError | None = None


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
        """Take a hive's whole list: what it no longer lists is gone.

        A list that was under way while a worker was ordered does not name it yet: only the second such list counts.
        """
        listed = {record.id: record for record in records}
        for record in listed.values():
            self._take(node, record)
        for worker_id in self._of(node):
            entry = self._entries[worker_id]
            if worker_id in listed:
                continue
            entry.missing_lists += 1
            if entry.listed or entry.missing_lists > 1:
                self._lose(worker_id, f"worker {worker_id} is gone")
        self._changed()

    def _take(self, node: str, record: WorkerRecord) -> None:
        entry = self._entries.setdefault(record.id, _Entry(node, record))
        if entry.node != node:
            _LOG.warning("the hive at %s lists %s, which is a worker of %s: ignored", node, record.id, entry.node)
            return
        entry.record, entry.listed, entry.gone = record, True, None

    def put(self, node: str, record: WorkerRecord, *, promised_to: str | None = None) -> None:
        """Take one record, before a heartbeat lists it; with a slot of it promised before anybody else may look."""
        entry = self._entries.setdefault(record.id, _Entry(node, record))
        entry.record = record
        if promised_to is not None:
            entry.promised.add(promised_to)
        self._changed()

    def forget_node(self, node: str, why: str) -> None:
        """That hive is gone, and so are its workers; `why` completes the sentence "it went with its hive: …"."""
        for worker_id in self._of(node):
            self._lose(worker_id, f"worker {worker_id} went with its hive: {why}")
        self._changed()

    def retire(self, worker_id: str) -> None:
        """It is about to be stopped: no task is given to it from now on."""
        if (entry := self._entries.get(worker_id)) is not None:
            entry.retired = True
            self._changed()

    def reinstate(self, worker_id: str) -> None:
        """It was not stopped after all."""
        if (entry := self._entries.get(worker_id)) is not None:
            entry.retired = False
            self._changed()

    def promise(self, worker_id: str, task_id: str) -> None:
        """Keep one of the worker's slots for the task."""
        if (entry := self._entries.get(worker_id)) is not None:
            entry.promised.add(task_id)

    def release(self, task_id: str) -> None:
        """The task needs its slot no longer, if it had one."""
        for entry in self._entries.values():
            entry.promised.discard(task_id)
        for worker_id in [id_ for id_, entry in self._entries.items() if entry.gone and not entry.promised]:
            del self._entries[worker_id]
        self._changed()

    def get(self, worker_id: str) -> WorkerRecord | None:
        """What is known of it; None when it is gone."""
        entry = self._entries.get(worker_id)
        return entry.record if entry and not entry.gone else None

    def node_of(self, worker_id: str) -> str | None:
        entry = self._entries.get(worker_id)
        return entry.node if entry else None

    def failure_of(self, worker_id: str) -> RbeeError | None:
        """Why the worker can no longer serve; None while it can or may yet."""
        entry = self._entries.get(worker_id)
        if entry is None:
            return WorkerCrashedError(f"worker {worker_id} is gone")
        if entry.gone is not None:
            return entry.gone
        record = entry.record
        if record.state is WorkerState.FAILED:
            return _told(record.error, worker_id)
        if record.state in {WorkerState.STOPPED, WorkerState.DRAINING}:
            return WorkerCrashedError(f"worker {worker_id} was stopped")
        return None

    def failure_since(self, record: WorkerRecord) -> RbeeError | None:
        """Why the very process of `record` can no longer serve, although its worker may live on in another one."""
        failure = self.failure_of(record.id)
        if failure is None and (now := self._entries[record.id].record).restart_count != record.restart_count:
            return _told(now.last_crash, record.id)
        return failure

    def facts(self) -> tuple[WorkerFacts, ...]:
        """For the scheduler, ordered by id."""
        return tuple(
            WorkerFacts(
                id=worker_id,
                node=entry.node,
                model_ref=entry.record.model_ref,
                backend=entry.record.backend,
                device=entry.record.device,
                state=WorkerState.DRAINING if entry.retired else entry.record.state,
                slots_free=_slots_free(entry),
                idle_since_s=entry.record.last_activity,
                in_use=bool(entry.promised),
                pinned=entry.record.pinned,
            )
            for worker_id, entry in sorted(self._entries.items())
            if entry.gone is None
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
            if entry.gone is None and entry.record.state is not WorkerState.STOPPED
        )

    def _of(self, node: str) -> list[str]:
        return [worker_id for worker_id, entry in self._entries.items() if entry.node == node]

    def _lose(self, worker_id: str, why: str) -> None:
        """Forget it; as long as a task counts on it, what became of it is kept for that task."""
        entry = self._entries[worker_id]
        if not entry.promised:
            del self._entries[worker_id]
        elif entry.gone is None:
            entry.gone = WorkerCrashedError(why)


def _told(error: Mapping[str, Any] | None, worker_id: str) -> RbeeError:
    return error_from_body(error or {"code": "WORKER_CRASHED", "message": f"worker {worker_id} died"})


def _slots_free(entry: _Entry) -> int:
    return max(0, entry.record.slots_total - len(entry.promised))


def _busy(entry: _Entry) -> bool:
    return bool(entry.promised) and entry.record.state is WorkerState.IDLE
