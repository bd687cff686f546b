"""The queen's API for programs: enqueue a task, stream its answer, cancel it. The keeper uses nothing else.

    import anyio
    from rbee_shared.queen_api import QueenApi

    async def main() -> None:
        queen = QueenApi("http://127.0.0.1:8080")
        async with queen.stream({"prompt": "write a short story", "max_tokens": 100}) as events:
            async for event in events:
                if event.type == "token":
                    print(event.data["t"], end="", flush=True)
                elif event.type == "error":
                    raise error_from_body(event.data)

    anyio.run(main)

Leaving the `stream` block before its end cancels the task. `submit` only enqueues: follow with `events`, which may be
read again from any event on, by any number of readers, and never cancels.

Every failure is an `RbeeError`: the queen's own, rebuilt; `QueenLostError` when she cannot be reached or went away;
`StreamTruncatedError` when a stream ended without its last event although she is still there. A stream yields exactly
one of `end` and `error`, last. An instance holds no connection: it may be shared by any number of tasks.
"""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

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


@dataclass(frozen=True)
class Hold:
    """A hold on the queen: an ephemeral one stays awake while it is open. `events` tells how she shuts down."""

    hold_id: str
    events: AsyncIterator[StreamEvent]


class QueenApi:
    """A queen at `base_url`. `token`: for what steers her, and for everything when she is on another machine."""

    def __init__(self, base_url: str, token: str | None = None, *, clocks: Clocks | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._clocks = clocks or Clocks()
        parse_url(self.base_url)

    async def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Enqueue a task and return `{task_id, job_id, status, queue_position, events_url}`."""
        wanted = {
            key: value for key, value in request.items() if key != "stream"
        }  # both would change the answer's form
        return await self._call("POST", "/v2/tasks", body=wanted)

    @asynccontextmanager
    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[EventSource]:
        """Enqueue a task and stream its events for the length of the block; leaving it early cancels the task.

        Raises:
            RbeeError: the queen refuses the task (before the first event).
        """
        async with self._streaming("POST", "/v2/tasks", body={**request, "stream": True}) as source:
            yield source

    @asynccontextmanager
    async def events(self, task_id: str, after: int = 0) -> AsyncGenerator[EventSource]:
        """The events of a task from the beginning, or those after number `after`. Leaving the block changes nothing."""
        path = f"/v2/tasks/{quote(task_id, safe='')}/events"
        async with self._streaming("GET", path, extra={"Last-Event-ID": str(after)}) as source:
            yield source

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """Cancel a task; harmless when it has ended."""
        return await self._call("POST", f"/v2/tasks/{quote(task_id, safe='')}/cancel")

    async def task(self, task_id: str) -> dict[str, Any]:
        """One task with its state and, at its end, its result or error."""
        return await self._call("GET", f"/v2/tasks/{quote(task_id, safe='')}")

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

    async def workers(self) -> list[dict[str, Any]]:
        """The workers she may route to. Wants the token."""
        return _rows(await self._call("GET", "/v2/workers"), "workers")

    async def nodes(self) -> list[dict[str, Any]]:
        """The nodes of her cluster. Wants the token."""
        return _rows(await self._call("GET", "/v2/nodes"), "nodes")

    async def shutdown(self, *, hold_id: str | None = None, cascade: bool = True) -> dict[str, Any]:
        """Ask her to shut down; with `hold_id` only if that was the last hold on her. Wants the token.

        Returns:
            `{"status": "shutting_down"}`, or `{"status": "held", "holds": N}` when others still hold her.
        """
        params = {"cascade": "true" if cascade else "false", **({"hold": hold_id} if hold_id else {})}
        return await self._call("POST", f"/shutdown?{urlencode(params)}")

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[Hold]:
        """Hold her for the length of the block.

        Raises:
            ShuttingDownError: too late, she is on her way out.
        """
        async with (
            self._answer("GET", "/v2/hold", accept="text/event-stream") as answer,
            aclosing(self._batches(answer, "GET /v2/hold")) as batches,
        ):
            nothing: list[StreamEvent] = []
            first = await anext(batches, nothing)
            hold_id = str(first[0].data.get("hold_id", "")) if first and first[0].type == "hold" else ""
            if not hold_id:
                raise BadPeerError(f"{self.base_url}/v2/hold: gave no hold")
            yield Hold(hold_id, _after(first[1:], batches))

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


def _event(frame: sse.Frame, what: str) -> StreamEvent:
    try:
        data = json.loads(frame.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise BadPeerError(f"{what}: an event {frame.event!r} carries no JSON object")
    return StreamEvent(frame.event, data, frame.id)


def _rows(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name)
    if not isinstance(rows, list):
        raise BadPeerError(f"the queen's list of {name} is none")
    return [row for row in rows if isinstance(row, dict)]


async def _after(first: list[StreamEvent], batches: AsyncGenerator[list[StreamEvent]]) -> AsyncGenerator[StreamEvent]:
    for event in first:
        yield event
    async for batch in batches:
        for event in batch:
            yield event
