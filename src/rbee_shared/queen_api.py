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

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from rbee_shared.errors import BadPeerError
from rbee_shared.queen_wire import EventSource, QueenWire, StreamEvent, rows_of


@dataclass(frozen=True)
class Hold:
    """A hold on the queen: an ephemeral one stays awake while it is open. `events` tells how she shuts down."""

    hold_id: str
    events: AsyncIterator[StreamEvent]


class QueenApi(QueenWire):
    """A queen at `base_url`. `token`: for what steers her, and for everything when she is on another machine."""

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

    async def workers(self) -> list[dict[str, Any]]:
        """The workers she may route to. Wants the token."""
        return rows_of(await self._call("GET", "/v2/workers"), "workers")

    async def nodes(self) -> list[dict[str, Any]]:
        """The nodes of her cluster. Wants the token."""
        return rows_of(await self._call("GET", "/v2/nodes"), "nodes")

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


async def _after(first: list[StreamEvent], batches: AsyncGenerator[list[StreamEvent]]) -> AsyncGenerator[StreamEvent]:
    for event in first:
        yield event
    async for batch in batches:
        for event in batch:
            yield event
