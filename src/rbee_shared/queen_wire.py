"""How programs talk to a queen over HTTP: bounded calls, and event streams that are checked to their last event.

Every failure is an `RbeeError`: the queen's own, rebuilt; `QueenLostError` when she cannot be reached or went away;
`StreamTruncatedError` when a stream ended without its last event although she is still there. Nothing here holds a
connection between two calls.
"""

import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from rbee_shared import sse
from rbee_shared.clocks import Clocks
from rbee_shared.errors import BadPeerError, QueenLostError, RbeeError, StreamTruncatedError
from rbee_shared.http_wire import bearer, read_answer
from rbee_shared.lean_http import Answer, exchange, parse_url

_LOG = logging.getLogger("rbee.queen_api")
QUEEN_PROGRAM = "queen-rbee"
_PINGS_MISSED = 3
_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. `data` is as docs/protocol.md has it for that `type`; `id` is what `events` resumes after."""

    type: str
    data: dict[str, Any]
    id: str | None


class EventSource:
    """The events of one stream, as they arrive: one by one, or all that arrived together."""

    def __init__(self, batches: AsyncGenerator[list[StreamEvent]]) -> None:
        self._batches = batches

    def batches(self) -> AsyncIterator[list[StreamEvent]]:
        """What arrived together, together."""
        return self._batches

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        async for batch in self._batches:
            for event in batch:
                yield event


class QueenWire:
    """A queen at `base_url`. `token`: for what steers her, and for everything when she is on another machine."""

    def __init__(self, base_url: str, token: str | None = None, *, clocks: Clocks | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._clocks = clocks or Clocks()
        parse_url(self.base_url)

    async def health(self, *, within_s: float | None = None) -> dict[str, Any]:
        """Her `/health`.

        Raises:
            BadPeerError: what answers is no queen.
        """
        facts = await self._call("GET", "/health", silence_s=within_s, connect_s=within_s)
        if facts.get("program") != QUEEN_PROGRAM:
            who = facts.get("program") or "something else"
            raise BadPeerError(f"what answers at {self.base_url} is not a queen, but {who}")
        return facts

    async def is_there(self, instance: str | None = None) -> bool:
        """Whether a queen (the very one that said `instance`) still answers."""
        try:
            facts = await self.health(within_s=_PROBE_S)
        except RbeeError:
            return False
        return instance is None or facts.get("instance") == instance

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        silence_s: float | None = None,
        connect_s: float | None = None,
    ) -> dict[str, Any]:
        async with exchange(
            method,
            self.base_url + path,
            headers={"Accept": "application/json", **bearer(self._token)},
            body=body,
            connect_s=connect_s or self._clocks.connect_s,
            silence_s=silence_s or self._clocks.control_call_s,
        ) as answer:
            return read_answer(answer.status, await answer.read(), what=f"{method} {self.base_url}{path}")

    async def _call_patiently(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """For what takes as long as it takes: given up only when she herself does not answer any more.

        Raises:
            QueenLostError: she has been silent for three pings.
        """
        answers: list[dict[str, Any]] = []
        failure: RbeeError = QueenLostError(f"{method} {self.base_url}{path}: the queen does not answer any more")
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_with_her, group.cancel_scope)
            try:
                answers.append(await self._call(method, path, body=body, silence_s=math.inf))
            except RbeeError as error:
                failure = error  # raised behind the group, which would wrap it
            group.cancel_scope.cancel()
        if not answers:
            raise failure
        return answers[0]

    async def _end_with_her(self, scope: anyio.CancelScope) -> None:
        missed = 0
        while missed < _PINGS_MISSED:
            await anyio.sleep(self._clocks.sse_ping_s)
            missed = 0 if await self.is_there() else missed + 1
        scope.cancel()

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        body: Mapping[str, Any] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Answer]:
        async with exchange(
            method,
            self.base_url + path,
            headers={"Accept": accept, **bearer(self._token), **(extra or {})},
            body=body,
            connect_s=self._clocks.connect_s,
            silence_s=self._clocks.sse_ping_s * _PINGS_MISSED,
        ) as answer:
            if not answer.is_event_stream:
                read_answer(answer.status, await answer.read(), what=f"{method} {path}")
                raise BadPeerError(f"{method} {self.base_url}{path}: answered without an event stream")
            yield answer

    @asynccontextmanager
    async def _streaming(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[EventSource]:
        async with (
            self._answer(method, path, accept="text/event-stream", body=body, extra=extra) as answer,
            aclosing(self._to_the_end(answer, f"{method} {path}")) as batches,
        ):
            yield EventSource(batches)

    async def _to_the_end(self, answer: Answer, what: str) -> AsyncGenerator[list[StreamEvent]]:
        """Every event up to the last one, whose coming is checked."""
        try:
            async with aclosing(self._batches(answer, what)) as batches:
                async for batch in batches:
                    last = next((n for n, event in enumerate(batch) if event.type in sse.TERMINAL_EVENTS), None)
                    if last is not None:
                        yield batch[: last + 1]
                        return
                    yield batch
        except QueenLostError:
            _LOG.debug("%s: broke", what)
        if await self.is_there():
            raise StreamTruncatedError("the queen's stream ended before the answer was complete")
        raise QueenLostError(f"the queen at {self.base_url} is gone, before the answer was complete")

    async def _batches(self, answer: Answer, what: str) -> AsyncGenerator[list[StreamEvent]]:
        """The events of each chunk, until `[DONE]` or the end of the stream."""
        splitter = sse.FrameSplitter()
        async for chunk in answer.chunks():
            frames = splitter.feed(chunk)
            done = next((n for n, frame in enumerate(frames) if frame.data == sse.DONE_DATA), None)
            if events := [_event(frame, what) for frame in frames[:done]]:
                yield events
            if done is not None:
                return


def rows_of(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The list of that name in an answer of hers; what in it is no object is left out."""
    rows = answer.get(name)
    if not isinstance(rows, list):
        raise BadPeerError(f"the queen's list of {name} is none")
    return [row for row in rows if isinstance(row, dict)]


def _event(frame: sse.Frame, what: str) -> StreamEvent:
    try:
        data = json.loads(frame.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise BadPeerError(f"{what}: an event {frame.event!r} carries no JSON object")
    return StreamEvent(frame.event, data, frame.id)
