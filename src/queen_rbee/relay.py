"""The token path: bytes from a worker, frames into the task's log. A token is never parsed on the way.

aiohttp reads it: measured at a fifth of the CPU that the other client costs per event (docs/architecture.md).
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from queen_rbee.task import Task
from rbee_shared import sse
from rbee_shared.contracts.tasks import TaskState
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.errors import NodeUnreachableError, StreamTruncatedError, error_from_body
from rbee_shared.http_client import bearer, read_answer
from rbee_shared.narration import Narration, Sink

_LOG = logging.getLogger("rbee.queen.relay")


@asynccontextmanager
async def token_client(*, connect_s: float, silence_s: float) -> AsyncGenerator[aiohttp.ClientSession]:
    """A client for workers' streams; `silence_s`: the longest wait for the next byte (workers send pings)."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=silence_s)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session:
        yield session


class Relay:
    """Streams of workers into logs of tasks."""

    def __init__(self, session: aiohttp.ClientSession, publish: Sink) -> None:
        self._session = session
        self._publish = publish

    async def execute(
        self, task: Task, worker: WorkerRecord, node: str, body: Mapping[str, Any], accepted: Callable[[], None]
    ) -> None:
        """Run `body` on the worker and relay its stream; returns when the task is finished.

        `accepted` is called when the worker has taken it.

        Raises:
            RbeeError: the worker refused it, before the first byte.
            NodeUnreachableError: the worker cannot be connected to.
            StreamTruncatedError: the stream broke off before its last event.
        """
        url = f"{worker.url}/execute"
        try:
            async with self._session.post(url, json=body, headers=bearer(worker.api_key)) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    read_answer(response.status, await response.read(), what=f"POST {url}")
                accepted()
                await self._relay(task, response.content, node)
        except aiohttp.ClientConnectorError as error:
            raise NodeUnreachableError(f"{url}: {error}") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StreamTruncatedError(f"the worker's stream broke off: {type(error).__name__}") from None

    async def _relay(self, task: Task, content: aiohttp.StreamReader, node: str) -> None:
        splitter = sse.FrameSplitter()
        append = task.log.append
        while chunk := await content.readany():
            for frame in splitter.feed(chunk):
                if frame.event == "token":
                    append(frame.raw)
                    task.tokens_seen += 1
                elif self._other(task, frame, node):
                    return
        raise StreamTruncatedError("the worker closed the stream before its last event")

    def _other(self, task: Task, frame: sse.Frame, node: str) -> bool:
        """Whatever is no token; whether it was the last event."""
        match frame.event:
            case "narration":
                narration = Narration.from_dict(frame.json()).on_node(node)
                task.hear(narration)
                self._publish(narration)
            case "started":
                task.enter(TaskState.RUNNING, "generating")
                task.log.append(sse.encode("started", {**frame.json(), "task_id": task.id, "node": node}))
            case "end":
                task.narrator.tell("finished", "worker finished inference", cute="🏁")
                task.complete(frame.json())
                return True
            case "error":
                raise error_from_body(frame.json())
            case other:
                _LOG.debug("a worker sent an event %r that means nothing here", other)
        return False
