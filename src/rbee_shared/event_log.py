"""One stream of events, kept for any number of readers: each starts where it likes and reads at its own pace.

Bounded in bytes: what may be dropped (narration, progress) goes first, oldest first; what must not be dropped (tokens,
the end) is kept until the log itself is dropped. Only the owner appends, and numbers the frames while it does.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator

from rbee_shared import sse
from rbee_shared.errors import EventsGoneError

DEFAULT_LIMIT_BYTES = 4 * 1024 * 1024


class EventLog:
    """Frames numbered from 1. Append is synchronous; readers wake when something is there."""

    def __init__(self, *, limit_bytes: int = DEFAULT_LIMIT_BYTES, drop_anything: bool = False) -> None:
        """`drop_anything`: forget the oldest frames whatever they are (a log without an end, such as narration)."""
        self._frames: list[tuple[int, bytes]] = []
        self._droppable: OrderedDict[int, int] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._drop_anything = drop_anything
        self._size_bytes = 0
        self._last = 0
        self._horizon = 0
        self._closed = False
        self._waiters: set[asyncio.Future[bool]] = set()
        self.readers = 0
        self.appended_at_s = time.monotonic()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def last_id(self) -> int:
        return self._last

    @property
    def horizon(self) -> int:
        """The number of the last frame that is no longer kept; reading after it gives all there is."""
        return self._horizon

    def append(self, raw: bytes, *, droppable: bool = False) -> int:
        """Add one frame (without an id) and return its number; ignored with 0 when the log is closed."""
        if self._closed:
            return 0
        self._last += 1
        frame = sse.numbered(self._last, raw)
        self._frames.append((self._last, frame))
        self._size_bytes += len(frame)
        self.appended_at_s = time.monotonic()
        if droppable or self._drop_anything:
            self._droppable[self._last] = len(frame)
        if self._size_bytes > self._limit_bytes:
            self._shrink()
        self._wake()
        return self._last

    def close(self) -> None:
        """Nothing follows: readers get what is there, then `[DONE]`."""
        self._closed = True
        self._wake()

    async def follow(self, after: int = 0, *, ping_s: float = 10.0) -> AsyncGenerator[bytes, None]:
        """Yield every frame after number `after`, several at once where they are there, until the log is closed.

        A comment is sent every `ping_s` seconds without an event.

        Raises:
            EventsGoneError: some of those frames are no longer kept. Raised before the first frame.
        """
        self.require_kept(after)
        self.readers += 1
        try:
            while True:
                # no await between reading the frames and moving the cursor
                batch = self._after(after)
                if batch:
                    after = batch[-1][0]
                    yield b"".join(frame for _, frame in batch)
                elif self._closed:
                    yield sse.DONE
                    return
                elif not await self._changed(ping_s):
                    yield sse.PING
        finally:
            self.readers -= 1

    def everything(self) -> bytes:
        """All frames that are kept."""
        return b"".join(frame for _, frame in self._frames)

    def require_kept(self, after: int) -> None:
        """Raise `EventsGoneError` unless every token and end after number `after` is still here."""
        if after < self._horizon:
            raise EventsGoneError(f"events up to {self._horizon} are no longer kept, {after + 1} was asked for")
        if after > self._last:
            raise EventsGoneError(f"there is no event {after} yet, the last one is {self._last}")

    def _after(self, number: int) -> list[tuple[int, bytes]]:
        if number >= self._last:
            return []
        low, high = 0, len(self._frames)
        while low < high:  # numbers may have gaps, they only ever grow
            middle = (low + high) // 2
            if self._frames[middle][0] <= number:
                low = middle + 1
            else:
                high = middle
        return self._frames[low:]

    def _shrink(self) -> None:
        """Drop what may be dropped until a quarter of the room is free, so that this runs rarely."""
        gone: set[int] = set()
        while self._droppable and self._size_bytes > self._limit_bytes * 3 // 4:
            number, size = self._droppable.popitem(last=False)
            gone.add(number)
            self._size_bytes -= size
        self._frames = [entry for entry in self._frames if entry[0] not in gone]
        if self._drop_anything and gone:
            self._horizon = max(gone)

    def _wake(self) -> None:
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(True)
            self._waiters.clear()

    async def _changed(self, timeout_s: float) -> bool:
        """Wait for an append or the close; False when neither came in time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(timeout_s, _settle, waiter)  # lighter than a cancel scope: runs once per token
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)  # a log in which nothing happens collects no readers that left


def _settle(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
