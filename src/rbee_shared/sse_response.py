"""The response that carries an event stream: bytes as they are, never cached or buffered on the way."""

from collections.abc import AsyncIterable

from starlette.requests import Request
from starlette.responses import StreamingResponse

from rbee_shared.errors import InvalidRequestError


class EventStream(StreamingResponse):
    """`text/event-stream`. When the client hangs up the iterator is cancelled at once."""

    def __init__(self, content: AsyncIterable[bytes], headers: dict[str, str] | None = None) -> None:
        super().__init__(
            content,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
        )


def last_event_id(request: Request) -> int:
    """The number after which a reader wants to go on; 0 for the beginning.

    Raises:
        InvalidRequestError: the header is no number.
    """
    text = request.headers.get("last-event-id", "0").strip() or "0"
    if not text.isascii() or not text.isdigit():
        raise InvalidRequestError(f"Last-Event-ID must be a number, got {text!r}")
    return int(text)
