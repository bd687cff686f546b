"""What the queen asks of a worker directly: run, cancel, and how far its loading is. Only she holds its key."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio

from queen_rbee.relay import Relay, answer_of
from queen_rbee.task import Task
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared import sse
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import Prompted, TaskRequest
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import (
    AllSlotsBusyError,
    NodeUnreachableError,
    RbeeError,
    StreamTruncatedError,
    WorkerCrashedError,
)
from rbee_shared.http_client import bearer

_LOG = logging.getLogger("rbee.queen.worker")
_BUSY_RETRY_S = 0.02
_BUSY_RETRY_MAX_S = 0.25
_BUSY_PATIENCE_S = 5.0
_DIAGNOSIS_S = 1.5


@dataclass(frozen=True)
class WorkerClient:
    """Calls to workers. `refresh` asks the node's hive anew for the state of its workers."""

    session: aiohttp.ClientSession
    relay: Relay
    workers: WorkerRegistry
    clocks: Clocks
    refresh: Callable[[str], Awaitable[None]]

    async def execute(self, task: Task, record: WorkerRecord, node: str, body: Mapping[str, Any]) -> None:
        """Run the task there and relay its answer until the last event. `body`: from `execute_body`.

        Raises:
            WorkerCrashedError: the worker died; `details` says how and after how many tokens.
            RbeeError: it refused, failed, or its stream broke off although it lives.
        """
        deadline_s, pause_s = anyio.current_time() + _BUSY_PATIENCE_S, _BUSY_RETRY_S
        while True:
            try:
                return await self._execute_once(task, record, node, body)
            except AllSlotsBusyError:
                if task.has_started:
                    raise  # tokens may have been shown: what is left is no refusal
                if anyio.current_time() >= deadline_s:
                    break
            # the slot of the answer before this one is free as soon as its last byte is out
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _BUSY_RETRY_MAX_S)
        raise AllSlotsBusyError(f"worker {record.id} stays busy although it has a free slot for the queen")

    async def _execute_once(self, task: Task, record: WorkerRecord, node: str, body: Mapping[str, Any]) -> None:
        try:
            await self.relay.execute(task, record, node, body)
        except (StreamTruncatedError, NodeUnreachableError) as error:
            raise await self._diagnosis(task, record, node, error) from None

    async def _diagnosis(self, task: Task, record: WorkerRecord, node: str, error: RbeeError) -> RbeeError:
        """Why the stream broke off: the hive knows within a second whether the process that sent it still lives."""
        with anyio.move_on_after(_DIAGNOSIS_S):
            while (failure := self.workers.failure_since(record)) is None:
                try:
                    await self.refresh(node)
                except RbeeError as unreachable:
                    _LOG.info("the hive at %s cannot say what became of %s: %s", node, record.id, unreachable)
                await anyio.sleep(_DIAGNOSIS_S / 10)
            details = {**failure.details, "worker_id": record.id, "tokens_sent": task.tokens_seen}
            text = f"{failure.message} after {task.tokens_seen} tokens"
            return WorkerCrashedError(text, hint=failure.hint, details=details)
        return error

    async def cancel(self, record: WorkerRecord, job_id: str) -> None:
        """Tell the worker to end that answer."""
        url = f"{record.url}/cancel"
        try:
            async with self.session.post(url, json={"job_id": job_id}, headers=bearer(record.api_key)) as response:
                await answer_of(response, f"POST {url}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnreachableError(f"{url}: {error}") from None

    async def relay_progress(self, record: WorkerRecord, task: Task) -> None:
        """Show the worker's loading progress to the task's readers; gives up quietly, the load itself goes on."""
        url = f"{record.url}/v1/loading/progress"
        splitter = sse.FrameSplitter()
        try:
            async with self.session.get(url, headers=bearer(record.api_key)) as response:
                while chunk := await response.content.readany():
                    for frame in splitter.feed(chunk):
                        if frame.event == "progress" and self._is_loading(record.id):
                            task.log.append(sse.encode("progress", frame.json()), droppable=True)
        except (aiohttp.ClientError, TimeoutError, RbeeError) as error:
            _LOG.debug("no progress from %s: %s", url, error)

    def _is_loading(self, worker_id: str) -> bool:
        record = self.workers.get(worker_id)
        return record is not None and record.state in {WorkerState.STARTING, WorkerState.LOADING}


def execute_body(request: TaskRequest, task_id: str) -> dict[str, Any]:
    """The part of a request that a worker needs."""
    fields = request.model_dump(include=set(Prompted.model_fields), exclude_none=True)
    return {**fields, "job_id": task_id}
