"""What an adopted hive says: its event stream, followed from the moment it was heard of.

A hive that this queen spawned speaks through its stdout instead, from its first line to its last (`rbee_shared.child`).
"""

import logging
from collections.abc import Callable

import aiohttp
import anyio

from rbee_shared import sse
from rbee_shared.errors import BadPeerError, EventsGoneError
from rbee_shared.http_client import bearer
from rbee_shared.narration import Narration

_LOG = logging.getLogger("rbee.queen.feed")
_RECONNECT_S = 0.5
_MAX_DIGITS = 19


class HiveFeed:
    """Follows `{url}/v1/events` after line `after`; reconnects where it left off."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str, after: int) -> None:
        self._session = session
        self._url = f"{url}/v1/events"
        self._token = token
        self._heard = after
        self._too_late = False
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def heard(self) -> int:
        """The number of the last line that has arrived."""
        return self._heard

    def close(self) -> None:
        """Hear no more of it."""
        self._scope.cancel()

    async def run(self, hear: Callable[[Narration], None]) -> None:
        """Follow it until closed, or until the hive ends its stream."""
        with self._scope:
            while True:
                try:
                    if await self._follow(hear):
                        return
                except (aiohttp.ClientError, TimeoutError, BadPeerError) as error:
                    _LOG.info("the narration of %s broke off: %s", self._url, error)
                await anyio.sleep(_RECONNECT_S)

    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        """Wait until `lines` lines have arrived; give up quietly after `timeout_s`."""
        with anyio.move_on_after(timeout_s):
            while self._heard < lines:
                await self._changed.wait()

    async def _follow(self, hear: Callable[[Narration], None]) -> bool:
        """Whether the hive itself ended the stream."""
        headers = bearer(self._token)
        if not self._too_late:
            headers["Last-Event-ID"] = str(self._heard)
        splitter = sse.FrameSplitter()
        async with self._session.get(self._url, headers=headers) as response:
            self._too_late = response.status == EventsGoneError.http_status
            response.raise_for_status()
            while chunk := await response.content.readany():
                for frame in splitter.feed(chunk):
                    if frame.data == sse.DONE_DATA:
                        return True
                    self._take(frame, hear)
        return False

    def _take(self, frame: sse.Frame, hear: Callable[[Narration], None]) -> None:
        if frame.id is not None and frame.id.isascii() and frame.id.isdigit() and len(frame.id) <= _MAX_DIGITS:
            self._heard = int(frame.id)  # first: a line that cannot be read is not asked for again
        if frame.event == "narration":
            hear(Narration.from_dict(frame.json()))
        self._changed.set()
        self._changed = anyio.Event()
