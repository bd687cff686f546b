"""The token path: bytes from a worker, frames into the task's log. A token is never parsed on the way.

aiohttp reads it: measured at a fifth of the CPU that the other client costs per event (docs/architecture.md).
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from pydantic import ValidationError

from queen_rbee.task import Task
from rbee_shared import sse
from rbee_shared.contracts.events import EndEvent
from rbee_shared.contracts.tasks import TaskState
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.errors import BadPeerError, NodeUnreachableError, StreamTruncatedError, error_from_body
from rbee_shared.http_client import bearer, read_answer
from rbee_shared.narration import Narration, Sink

_LOG = logging.getLogger("rbee.queen.relay")
_MAX_REFUSAL_BYTES = 1024 * 1024
_MAX_ANSWER_BYTES = 64 * 1024 * 1024


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

    async def execute(self, task: Task, worker: WorkerRecord, node: str, body: Mapping[str, Any]) -> None:
        """Run `body` on the worker and relay its stream; returns when the task is finished.

        Raises:
            RbeeError: the worker refused it before the first byte, or ended the stream with an error.
            NodeUnreachableError: the worker cannot be connected to.
            StreamTruncatedError: the stream broke off before its last event.
            BadPeerError: what it streams is no answer.
        """
        url = f"{worker.url}/execute"
        try:
            async with self._session.post(url, json=body, headers=bearer(worker.api_key)) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    await answer_of(response, f"POST {url}")
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
                elif frame.event == "logprobs":
                    append(frame.raw)  # as large as many tokens: unparsed like them
                elif self._other(task, frame, node):
                    return
            if task.tokens_seen and not task.has_started:
                raise BadPeerError("the worker sent a token before it said that it had started")
            if task.log.size_bytes > _MAX_ANSWER_BYTES:
                raise BadPeerError(f"the worker's answer is larger than {_MAX_ANSWER_BYTES} bytes")
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
                end = _checked_end(task, frame)
                task.narrator.tell("finished", "worker finished inference", cute="🏁")
                task.complete(end)
                return True
            case "error":
                raise error_from_body(frame.json())
            case other:
                _LOG.debug("a worker sent an event %r that means nothing here", other)
        return False


def _checked_end(task: Task, frame: sse.Frame) -> dict[str, Any]:
    """The data of an `end` event, fields of a newer worker included."""
    end = frame.json()
    try:
        EndEvent.model_validate(end)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise BadPeerError(f"the worker's last event is not as it should be: {wrong}") from None
    if not task.has_started:
        raise BadPeerError("the worker ended an answer that it had not started")
    return end


async def answer_of(response: aiohttp.ClientResponse, what: str) -> dict[str, Any]:
    """A worker's JSON answer, or the error that it carries; never more of it than a bound."""
    content = b""
    while len(content) < _MAX_REFUSAL_BYTES and (chunk := await response.content.readany()):
        content += chunk
    return read_answer(response.status, content, what=what)
