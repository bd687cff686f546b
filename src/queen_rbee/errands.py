"""What the queen does about a node for somebody who waits: each has a stream of what is said, and one end.

Whoever asked and hangs up ends it. What is done by then stays done.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
from anyio.abc import TaskGroup

from queen_rbee.silence import break_silence
from rbee_shared import sse
from rbee_shared.contracts.nodes import NodeOutcome
from rbee_shared.error_groups import first_error
from rbee_shared.errors import CancelledTaskError, InternalError, RbeeError, ShuttingDownError
from rbee_shared.event_log import EventLog
from rbee_shared.narration import Narration, Narrator, Sink, correlation_id

_LOG = logging.getLogger("rbee.queen.errands")


class Errand:
    """One of them. Made by `Errands.begin`."""

    def __init__(self, correlation: str | None, sink: Sink) -> None:
        self.correlation_id = correlation
        self.log = EventLog()
        self.scope = anyio.CancelScope()
        self.finished = anyio.Event()
        self.outcome: NodeOutcome | None = None
        self.error: RbeeError | None = None
        self.doing = "beginning"
        self.doing_since_s = time.monotonic()
        self._sink = sink

    @property
    def is_finished(self) -> bool:
        return self.finished.is_set()

    @property
    def narrator(self) -> Narrator:
        """The queen speaking about it: to whoever asked, and to the whole cluster's stream."""
        return Narrator("queen", self._narrate)

    def now(self, doing: str) -> None:
        """What it waits for; completes the sentence "still …"."""
        self.doing, self.doing_since_s = doing, time.monotonic()

    def hear(self, narration: Narration) -> None:
        self.log.append(sse.encode("narration", narration.to_dict()), droppable=True)

    def hung_up(self) -> None:
        """Nobody waits for it any more."""
        self.scope.cancel()

    def end(self, outcome: NodeOutcome) -> None:
        """The first end counts."""
        if self.is_finished:
            return
        self.outcome = outcome
        self._finish("end", outcome.model_dump(mode="json"))

    def fail(self, error: RbeeError) -> None:
        """The first end counts."""
        if self.is_finished:
            return
        self.error = error
        self._finish("error", error.body())

    def _finish(self, event: str, facts: dict[str, Any]) -> None:
        self.log.append(sse.encode(event, facts))
        self.log.close()
        self.finished.set()

    def _narrate(self, narration: Narration) -> None:
        self.hear(narration)
        self._sink(narration)


class Errands:
    """Those that are under way. `group`: where they run."""

    def __init__(self, publish: Sink, silence_s: float, group: TaskGroup) -> None:
        self._publish = publish
        self._silence_s = silence_s
        self._group = group
        self._running: set[Errand] = set()
        self._is_closed = False

    def begin(self, work: Callable[[Errand], Awaitable[NodeOutcome]]) -> Errand:
        """Start on it.

        Raises:
            ShuttingDownError: the queen is on her way out.
        """
        if self._is_closed:
            raise ShuttingDownError("the queen is shutting down")
        errand = Errand(correlation_id.get(), self._publish)
        self._running.add(errand)
        self._group.start_soon(self._run, errand, work)
        return errand

    def close(self) -> None:
        """Shutting down: take nothing new, end what is under way."""
        self._is_closed = True
        for errand in list(self._running):
            errand.fail(ShuttingDownError("the queen shut down before it was done"))
            errand.scope.cancel()

    def any_running(self) -> bool:
        return bool(self._running)

    def route(self, narration: Narration) -> bool:
        """Show a line from another program to the errands that it works for; whether there was one."""
        concerned = list(self._concerned(narration.correlation_id))
        for errand in concerned:
            errand.hear(narration)
        return bool(concerned)

    def _concerned(self, correlation: str | None) -> Iterator[Errand]:
        return (errand for errand in self._running if correlation and errand.correlation_id == correlation)

    async def _run(self, errand: Errand, work: Callable[[Errand], Awaitable[NodeOutcome]]) -> None:
        correlation_id.set(errand.correlation_id)
        try:
            with errand.scope:
                await self._see_through(errand, work)
        finally:
            self._running.discard(errand)
        if not errand.is_finished:
            errand.fail(CancelledTaskError("it was cancelled: whoever asked for it hung up"))

    async def _see_through(self, errand: Errand, work: Callable[[Errand], Awaitable[NodeOutcome]]) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(break_silence, errand, self._silence_s)
                outcome = await work(errand)
                group.cancel_scope.cancel()
            errand.end(outcome)
        except* RbeeError as errors:
            errand.fail(first_error(errors))
        except* Exception as errors:  # noqa: BLE001 - the queen must live on; it is told and logged
            _LOG.exception("an errand failed")
            errand.fail(InternalError(f"the queen failed: {first_error(errors)!r}"))
