r"""Server-sent events as bytes: encode a frame, and split a byte stream into frames.

Frames are cut at `\n`, `\r\n` and `\r` only. Text libraries also split at U+2028 and its kin, which may stand in a
token. JSON inside a frame is ASCII-escaped, so none of these bytes ever stands in one of ours.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbee_shared.errors import BadPeerError

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
DONE_DATA = b"[DONE]"
MAX_FRAME_BYTES = 4 * 1024 * 1024
TERMINAL_EVENTS = frozenset({"end", "error"})


@dataclass(frozen=True, slots=True)
class Frame:
    r"""One event. `raw` is the frame as it came, with its line ends as `\n` and the blank line behind it."""

    event: str
    data: bytes
    id: str | None
    raw: bytes

    def json(self) -> dict[str, Any]:
        """The data as an object.

        Raises:
            BadPeerError: it is none.
        """
        try:
            value = json.loads(self.data, parse_constant=_refuse)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise BadPeerError(f"an event {self.event!r} carries no JSON object")
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def encode(event: str, data: Mapping[str, Any]) -> bytes:
    """One frame; the data repeats the event's name as `type`."""
    body = json.dumps({"type": event, **data}, separators=(",", ":"), allow_nan=False)
    return f"event: {event}\ndata: {body}\n\n".encode()


def numbered(number: int, raw: bytes) -> bytes:
    """The frame `raw` with an id in front."""
    return b"id: %d\n%b" % (number, raw)


class FrameSplitter:
    """Feed it chunks of bytes as they come; it returns the frames that are complete, comments left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._held_cr = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames completed by `chunk`.

        Raises:
            BadPeerError: a frame is larger than `MAX_FRAME_BYTES`.
        """
        if self._held_cr or b"\r" in chunk:
            chunk = self._normalized(chunk)
        blocks = (self._rest + chunk).split(b"\n\n")
        self._rest = blocks.pop()
        if len(self._rest) > MAX_FRAME_BYTES:
            raise BadPeerError("an event is larger than 4 MiB")
        return [frame for block in blocks if (frame := _parse(block)) is not None]

    def _normalized(self, chunk: bytes) -> bytes:
        r"""Line ends as `\n`. A trailing `\r` is held back: its `\n` may stand in the next chunk."""
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


_TOKEN_PREFIX = b"event: token\ndata: "


def _parse(block: bytes) -> Frame | None:
    if block.startswith(_TOKEN_PREFIX) and block.count(b"\n") == 1:  # the hot path: no line is looked at
        return Frame("token", block[len(_TOKEN_PREFIX) :], None, block + b"\n\n")
    event, data, id_ = "message", [], None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode(errors="replace")
        elif name == b"id":
            id_ = value.decode(errors="replace")
    if not data:
        return None
    return Frame(event, b"\n".join(data), id_, block.lstrip(b"\n") + b"\n\n")
