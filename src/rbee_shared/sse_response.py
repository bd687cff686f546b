"""The response that carries an event stream: bytes as they are, never cached or buffered on the way."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

import anyio
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from rbee_shared.errors import ClientTooSlowError, InvalidRequestError

_LOG = logging.getLogger("rbee.http")
_MAX_DIGITS = 19


class EventStream(StreamingResponse):
    """`text/event-stream`. A client that hangs up, or takes nothing for `slow_client_s`, ends the iterator at once.

    `ended` is called once when the response is over, however it ended: also when the client had gone before the first
    byte, where the iterator never began and none of its `finally` runs.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes, None],
        *,
        slow_client_s: float,
        headers: dict[str, str] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            content,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
        )
        self._content = content
        self._slow_client_s = slow_client_s
        self._ended = ended

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                with anyio.CancelScope(shield=True):  # frees what it holds; our streams await nothing on closing
                    await self._content.aclose()
            finally:
                if self._ended is not None:
                    self._ended()

    @override
    async def stream_response(self, send: Send) -> None:
        loop = asyncio.get_running_loop()

        async def bounded_send(message: Message) -> None:
            timer = loop.call_later(
                self._slow_client_s, scope.cancel
            )  # lighter than a scope of its own: once per token
            try:
                await send(message)
            finally:
                timer.cancel()

        with anyio.CancelScope() as scope:
            await super().stream_response(bounded_send)
        if scope.cancelled_caught:
            # its buffers are full, so it cannot be told; the log is the only place left
            error = ClientTooSlowError(f"a reader took nothing for {self._slow_client_s:.0f} s: its stream was closed")
            _LOG.warning("%s (%s)", error.message, error.code)


def last_event_id(request: Request) -> int:
    """The number after which a reader wants to go on; 0 for the beginning.

    Raises:
        InvalidRequestError: the header is no number.
    """
    text = request.headers.get("last-event-id", "0").strip() or "0"
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise InvalidRequestError(f"Last-Event-ID must be a number, got {text[:_MAX_DIGITS]!r}")
    return int(text)
