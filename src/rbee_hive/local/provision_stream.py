"""Reads event streams: frame by frame, or those of a provision up to the last one."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from rbee_shared.contracts.provisions import ProvisionEnd
from rbee_shared.errors import BadPeerError, StreamTruncatedError, error_from_body
from rbee_shared.sse import DONE_DATA, Frame, FrameSplitter

Hear = Callable[[str, Mapping[str, Any]], None]


async def frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Frame]:
    """The events of a stream, without its `[DONE]`."""
    splitter = FrameSplitter()
    async for chunk in chunks:
        for frame in splitter.feed(chunk):
            if frame.data != DONE_DATA:
                yield frame


async def read_to_the_end(chunks: AsyncIterator[bytes], hear: Hear) -> ProvisionEnd:
    """Call `hear` with the type and data of each event before the last.

    Raises:
        RbeeError: the one that the `error` event carries.
        StreamTruncatedError: the stream closed before its last event.
        BadPeerError: it is no stream of ours.
    """
    async with aclosing(frames(chunks)) as found:
        async for frame in found:
            data = frame.json()
            if frame.event == "error":
                raise error_from_body(data)
            if frame.event == "end":
                return _end(data)
            hear(frame.event, data)
    raise StreamTruncatedError("the events ended before the work did", hint="Run the command again: it goes on.")


def _end(data: Mapping[str, Any]) -> ProvisionEnd:
    try:
        return ProvisionEnd.model_validate(data)
    except ValidationError as error:
        raise BadPeerError(f"the last event is none of ours: {error.errors()[0]['msg']}") from None
