"""What the queen asks of a worker directly: run, cancel, and how far its loading is. Only she holds its key."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio

from queen_rbee.relay import Relay, answer_of
from queen_rbee.resumption import Resumption
from queen_rbee.task import Task
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared import sse
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import Prompted, TaskRequest
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import (
    AllSlotsBusyError,
    AlreadyExistsError,
    CancelledTaskError,
    NodeUnreachableError,
    RbeeError,
    TaskNotFoundError,
    WorkerCrashedError,
)
from rbee_shared.http_client import bearer

_LOG = logging.getLogger("rbee.queen.worker")
_BUSY_RETRY_S = 0.02
_BUSY_RETRY_MAX_S = 0.25
_BUSY_PATIENCE_S = 5.0
_INQUIRY_S = 1.5

Address = Callable[[str, str], Awaitable[str]]
"""From a node and a worker's own URL to the URL where it is reached now.

Waits, for a bounded time, while the connection to the node is being restored; `NodeUnreachableError` when it is not.
"""


async def own_address(_node: str, url: str) -> str:
    """Every worker is reached where it says that it is."""
    return url


@dataclass(frozen=True)
class WorkerClient:
    """Calls to workers. `refresh` asks the node's hive anew for the state of its workers."""

    session: aiohttp.ClientSession
    relay: Relay
    workers: WorkerRegistry
    clocks: Clocks
    refresh: Callable[[str], Awaitable[None]]
    address: Address = own_address

    async def execute(self, task: Task, record: WorkerRecord, node: str, body: Mapping[str, Any]) -> None:
        """Run the task there and relay its answer until the last event. `body`: from `execute_body`.

        A stream that breaks off is taken up again by the same process, as long as the hive's lease lets it live.

        Raises:
            WorkerCrashedError: the worker died; `details` says how and after how many tokens.
            RbeeError: it refused, failed, or cannot be reached although it lives.
        """
        window_s = self.clocks.hive_lease_s + self.clocks.hive_drain_s
        await Resumption(task, _Source(self, task, record, node), node, window_s=window_s).run(body)

    async def cancel(self, record: WorkerRecord, job_id: str) -> None:
        """Tell the worker to end that answer."""
        url = await self.url_of(record, "/cancel")
        try:
            async with self.session.post(url, json={"job_id": job_id}, headers=bearer(record.api_key)) as response:
                await answer_of(response, f"POST {url}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnreachableError(f"{url}: {error}") from None

    async def url_of(self, record: WorkerRecord, path: str) -> str:
        """Where that route of the worker is reached now.

        Raises:
            NodeUnreachableError: nowhere.
        """
        node = self.workers.node_of(record.id)
        if node is None or record.url is None:
            raise NodeUnreachableError(f"worker {record.id} has no address")
        return await self.address(node, record.url) + path

    async def relay_progress(self, record: WorkerRecord, task: Task) -> None:
        """Show the worker's loading progress to the task's readers; gives up quietly, the load itself goes on."""
        splitter = sse.FrameSplitter()
        try:
            url = await self.url_of(record, "/v1/loading/progress")
            async with self.session.get(url, headers=bearer(record.api_key)) as response:
                while chunk := await response.content.readany():
                    for frame in splitter.feed(chunk):
                        if frame.event == "progress" and self._is_loading(record.id):
                            task.log.append(sse.encode("progress", frame.json()), droppable=True)
        except (aiohttp.ClientError, TimeoutError, RbeeError) as error:
            _LOG.debug("no progress from %s: %s", record.id, error)

    def _is_loading(self, worker_id: str) -> bool:
        record = self.workers.get(worker_id)
        return record is not None and record.state in {WorkerState.STARTING, WorkerState.LOADING}


@dataclass(frozen=True)
class _Source:
    """One worker's process as the source of one answer."""

    client: WorkerClient
    task: Task
    record: WorkerRecord
    node: str

    async def stream(self, body: Mapping[str, Any]) -> None:
        deadline_s, pause_s = anyio.current_time() + _BUSY_PATIENCE_S, _BUSY_RETRY_S
        in_pairs = bool(body.get("logprobs") or body.get("n_probs"))
        relay, accepted = self.client.relay, None
        url = await self.client.url_of(self.record, "/execute")
        while True:
            try:
                async with relay.accepted(url, self.record.api_key, body) as accepted:
                    return await relay.relay(self.task, accepted, self.node, in_pairs=in_pairs)
            except (AllSlotsBusyError, AlreadyExistsError) as busy:
                if accepted is not None:
                    raise  # an error of the answer, no refusal
                await self._wait_out(busy, deadline_s, pause_s)
            pause_s = min(pause_s * 2, _BUSY_RETRY_MAX_S)

    async def _wait_out(self, busy: RbeeError, deadline_s: float, pause_s: float) -> None:
        """The slot of an answer is free as soon as its last byte is out, or as the worker has let go of it."""
        if self.task.cancel_requested:
            raise CancelledTaskError("the task was cancelled")
        if anyio.current_time() >= deadline_s:
            text = f"worker {self.record.id} stays busy although it has a free slot for the queen"
            raise AllSlotsBusyError(text) from None
        if isinstance(busy, AlreadyExistsError):
            await self.silence()  # a request that was thought to be lost has arrived after all
        await anyio.sleep(pause_s)

    async def silence(self) -> None:
        try:
            with anyio.fail_after(self.client.clocks.connect_s):
                await self.client.cancel(self.record, self.task.id)
        except TaskNotFoundError:
            _LOG.debug("worker %s does not work for %s any more", self.record.id, self.task.id)
        except TimeoutError:
            raise NodeUnreachableError(f"worker {self.record.id} does not answer") from None

    def failure(self) -> RbeeError | None:
        failure = self.client.workers.failure_since(self.record)
        if failure is None:
            return None
        details = {**failure.details, "worker_id": self.record.id, "tokens_sent": self.task.tokens_seen}
        text = f"{failure.message} after {self.task.tokens_seen} tokens"
        return WorkerCrashedError(text, hint=failure.hint, details=details)

    async def inquire(self) -> None:
        try:
            with anyio.fail_after(_INQUIRY_S):
                await self.client.refresh(self.node)
        except (RbeeError, TimeoutError) as error:
            _LOG.info("the hive at %s cannot say what became of %s: %s", self.node, self.record.id, error)


def execute_body(request: TaskRequest, task_id: str) -> dict[str, Any]:
    """The part of a request that a worker needs."""
    fields = request.model_dump(include=set(Prompted.model_fields), exclude_none=True)
    return {**fields, "job_id": task_id}
