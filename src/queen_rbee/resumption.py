"""One answer through as many streams of its worker as it takes: what is in the log stays, the rest is asked for anew.

Guarantees: its readers see one stream without a gap or a repeat. It gives up when the worker's process is gone, when
the worker stays out of reach for `window_s` after a cut, or when one stream after the other brings nothing.
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import anyio
import anyio.to_thread

from queen_rbee.domain.resumption import Standing, request_to_go_on, standing_of
from queen_rbee.task import Task
from rbee_shared.errors import CancelledTaskError, NodeUnreachableError, RbeeError, StreamTruncatedError

_LOG = logging.getLogger("rbee.queen.resumption")
_BARREN_TRIES = 5
_PAUSE_S = 0.05
_PAUSE_MAX_S = 0.5


class Source(Protocol):
    """The worker of one answer."""

    async def stream(self, body: Mapping[str, Any]) -> None:
        """Ask for the answer and relay it until its end; `StreamTruncatedError`, `NodeUnreachableError`: a cut."""
        ...

    async def silence(self) -> None:
        """Let it generate for no reader; returns when it has taken that, raises `RbeeError` when it cannot be asked."""
        ...

    def failure(self) -> RbeeError | None:
        """Why its process can no longer serve, as far as is known; None while it can."""
        ...

    async def inquire(self) -> None:
        """Find out whether its process still lives, for `failure`; bounded, and quiet when nobody can tell."""
        ...


class Resumption:
    """Sees one answer through its cuts."""

    def __init__(self, task: Task, source: Source, node: str, *, window_s: float) -> None:
        self._task = task
        self._source = source
        self._node = node
        self._window_s = window_s
        self._standing: Standing | None = None
        self._tries = 0
        self._pause_s = _PAUSE_S

    async def run(self, body: Mapping[str, Any]) -> None:
        """Return when the task has its last event. `body`: of the first request.

        Raises:
            StreamTruncatedError, NodeUnreachableError: the last cut, which could not be overcome.
            CancelledTaskError: the stream broke off while a cancel was under way.
            RbeeError: the worker's process died, refused the request, or failed.
            BadPeerError: what reached the log is no answer that could go on.
        """
        request = body
        while True:
            try:
                return await self._source.stream(request)
            except (StreamTruncatedError, NodeUnreachableError) as cut:
                standing = await anyio.to_thread.run_sync(standing_of, self._task.log.everything())
                await self._overcome(cut, standing)
                request = request_to_go_on(body, standing)

    async def _overcome(self, cut: RbeeError, standing: Standing) -> None:
        """Return when the worker can be asked to go on from `standing`."""
        task = self._task
        if task.cancel_requested:
            raise CancelledTaskError("the task was cancelled, and its stream broke off before its last event")
        task.tokens_seen = standing.frames
        if standing != self._standing:
            self._standing, self._tries, self._pause_s = standing, 0, _PAUSE_S
            self._tell(cut, standing)
        if self._tries == _BARREN_TRIES:
            raise cut
        self._tries += 1
        task.is_interrupted = True
        try:
            with anyio.move_on_after(self._window_s) as scope:
                await self._reach()
        finally:
            task.is_interrupted = False
        if scope.cancelled_caught:
            raise cut

    async def _reach(self) -> None:
        """Return when the worker was told to end what it still generates, so that nothing is generated twice."""
        if self._tries > 1:
            await self._pause()
        while True:
            if (failure := self._source.failure()) is not None:
                raise failure
            try:
                return await self._source.silence()
            except RbeeError as error:
                _LOG.info("task %s cannot go on yet: %s (%s)", self._task.id, error, error.code)
            await self._source.inquire()
            await self._pause()

    async def _pause(self) -> None:
        await anyio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)

    def _tell(self, cut: RbeeError, standing: Standing) -> None:
        _LOG.warning("task %s: %s (%s)", self._task.id, cut, cut.code)
        self._task.receipt["interruptions"] = self._task.receipt.get("interruptions", 0) + 1
        self._task.now(f"waiting for the connection to {self._node}")
        tokens = len(standing.ids)
        if tokens:
            counted = "1 token" if tokens == 1 else f"{tokens} tokens"
            what = f"the connection to {self._node} broke off after {counted}; going on where it left off"
        elif isinstance(cut, NodeUnreachableError):
            what = f"there is no connection to the worker at {self._node}; asking again"
        else:
            what = f"the connection to {self._node} broke off before the first token; asking again"
        self._task.narrator.tell("interrupted", what, cute="🔌", level="warning", tokens=tokens)
