"""The token path: bytes from a worker, frames into the task's log. A token is never parsed on the way.

aiohttp reads it: measured at a fifth of the CPU that the other client costs per event (docs/architecture.md).
"""

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import ValidationError

from queen_rbee.domain.resumption import Stretch, numbered_token, told_as_one
from queen_rbee.task import Task
from rbee_shared import sse
from rbee_shared.contracts.events import EndEvent
from rbee_shared.contracts.tasks import StopReason, TaskState
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


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stream that a worker has taken up. `asked_at_s`: on the monotonic clock."""

    content: aiohttp.StreamReader
    asked_at_s: float


class Relay:
    """Streams of workers into logs of tasks."""

    def __init__(self, session: aiohttp.ClientSession, publish: Sink) -> None:
        self._session = session
        self._publish = publish

    @asynccontextmanager
    async def accepted(self, url: str, key: str | None, body: Mapping[str, Any]) -> AsyncGenerator[Accepted]:
        """Ask for an answer to `body`: it is there to be relayed for the length of the block.

        Raises:
            RbeeError: the worker refused it before the first byte.
            NodeUnreachableError: the worker cannot be connected to.
            StreamTruncatedError: the connection broke off, before the answer or while it was read in the block.
        """
        asked_at_s = time.monotonic()
        try:
            async with self._session.post(url, json=body, headers=bearer(key)) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    await answer_of(response, f"POST {url}")
                yield Accepted(response.content, asked_at_s)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NodeUnreachableError(f"{url}: {error}") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StreamTruncatedError(f"the worker's stream broke off: {type(error).__name__}") from None

    async def relay(self, task: Task, accepted: Accepted, node: str, *, in_pairs: bool) -> None:
        """Relay a stream until the task is finished; where the task has begun already, it is the rest of its answer.

        `in_pairs`: log probabilities follow each token.

        Raises:
            RbeeError: the worker ended the stream with an error.
            StreamTruncatedError: the stream broke off before its last event.
            BadPeerError: what it streams is no answer, or not the rest of the one that was begun.
        """
        stream = _Stream(task, node, self._publish, accepted.asked_at_s, in_pairs=in_pairs)
        try:
            await stream.read(accepted.content)
        finally:
            task.stretches += stream.stretches


class _Stream:
    """One stream of a worker on its way into a task's log."""

    def __init__(self, task: Task, node: str, publish: Sink, asked_at_s: float, *, in_pairs: bool) -> None:
        self._task = task
        self._node = node
        self._publish = publish
        self._in_pairs = in_pairs
        self._goes_on = task.has_started
        self._held: bytes | None = None
        self._has_tokens = False
        self._asked_at_s = asked_at_s
        self._first_token_at_s = self._last_event_at_s = 0.0

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What it brought: one, or none where no token came."""
        times = (self._asked_at_s, self._first_token_at_s, max(self._first_token_at_s, self._last_event_at_s))
        return (Stretch(*times),) if self._has_tokens else ()

    async def read(self, content: aiohttp.StreamReader) -> None:
        task, splitter = self._task, sse.FrameSplitter()
        append = self._hold if self._in_pairs else task.log.append
        while chunk := await content.readany():
            for frame in splitter.feed(chunk):
                if frame.event == "token":
                    if not self._has_tokens:
                        self._begin(frame)
                    append(frame.raw)
                    task.tokens_seen += 1
                elif self._other(frame):
                    return
            self._last_event_at_s = task.log.appended_at_s
            if task.tokens_seen and not task.has_started:
                raise BadPeerError("the worker sent a token before it said that it had started")
            if task.log.size_bytes > _MAX_ANSWER_BYTES:
                raise BadPeerError(f"the worker's answer is larger than {_MAX_ANSWER_BYTES} bytes")
        raise StreamTruncatedError("the worker closed the stream before its last event")

    def _begin(self, frame: sse.Frame) -> None:
        self._has_tokens, self._first_token_at_s = True, time.monotonic()
        if self._task.tokens_seen:
            numbered_token(frame, self._task.tokens_seen)

    def _hold(self, raw: bytes) -> None:
        """Keep a token until the frame behind it is there: a cut must not part it from its log probabilities."""
        self._release()
        self._held = raw

    def _release(self) -> None:
        if self._held is not None:
            self._task.log.append(self._held)
            self._held = None

    def _other(self, frame: sse.Frame) -> bool:
        """Whatever is no token; whether it was the last event."""
        self._release()
        match frame.event:
            case "logprobs":
                self._task.log.append(frame.raw)  # as large as many tokens: unparsed like them
            case "narration":
                self._hear(Narration.from_dict(frame.json()).on_node(self._node))
            case "started":
                self._started(frame)
            case "end":
                self._ended(frame)
                return True
            case "error":
                raise error_from_body(frame.json())
            case other:
                _LOG.debug("a worker sent an event %r that means nothing here", other)
        return False

    def _hear(self, narration: Narration) -> None:
        if self._goes_on and not self._has_tokens and narration.level == "info":
            return  # how an answer begins was told when it began
        self._task.hear(narration)
        self._publish(narration)

    def _started(self, frame: sse.Frame) -> None:
        task = self._task
        if self._goes_on:
            task.now("generating")
            told = f"the connection to {self._node} is back; the answer goes on"
            task.narrator.tell("resumed", told, cute="🔗")
        else:
            task.enter(TaskState.RUNNING, "generating")
            task.log.append(sse.encode("started", {**frame.json(), "task_id": task.id, "node": self._node}))

    def _ended(self, frame: sse.Frame) -> None:
        task, end = self._task, _checked_end(self._task, frame)
        if end["stop_reason"] == StopReason.CANCELLED and not task.cancel_requested:
            # meant for the request before this one, and late: the answer is not at its end
            raise StreamTruncatedError("the worker ended an answer that nobody has cancelled")
        if task.stretches:
            self._last_event_at_s = task.log.appended_at_s
            end = told_as_one(end, (*task.stretches, *self.stretches))
        task.narrator.tell("finished", "worker finished inference", cute="🏁")
        task.complete(end)


def _checked_end(task: Task, frame: sse.Frame) -> dict[str, Any]:
    """The data of an `end` event, fields of a newer worker included."""
    end = frame.json()
    try:
        end |= EndEvent.model_validate(end).model_dump(mode="json", exclude_unset=True)
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
