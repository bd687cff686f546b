"""Takes the body of an answer into a partial file: the event loop reads, a thread hashes and writes, at the same time.

However the reading ends, also by cancellation, what had come by then goes to the disk first.
"""

import logging
import math
from collections import deque

import aiohttp
import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from rbee_hive.domain.models.transfer import MIB, Limits, require_space
from rbee_hive.models.partial_file import PartialFile
from rbee_hive.models.transfer_http import NETWORK_ERRORS, why
from rbee_hive.models.transfer_watch import Watch
from rbee_shared.errors import RbeeError

_LOG = logging.getLogger("rbee.hive.download")
_PIECE_BYTES = 4 * MIB  # measured: smaller ones cost more in changing threads than they win
_PIECES_WAITING = 2
_RESCUE_S = 5.0
_FLUSH_S = 0.1  # nothing that has come waits longer than this for its thread: a kill costs no more


class BodyReader:
    """Reads bodies for one partial file. `received_bytes`: over the network, of all of them."""

    def __init__(self, partial: PartialFile, watch: Watch, limits: Limits) -> None:
        self._partial = partial
        self._watch = watch
        self._limits = limits
        self._disk_error: RbeeError | None = None
        self._pile = _Pile()
        self._unwritten: deque[list[bytes]] = deque()
        self.received_bytes = 0

    async def take(self, content: aiohttp.StreamReader, total_bytes: int | None) -> str | None:
        """Append `content` until the file has `total_bytes`, or its end. Why it broke off; None: it did not.

        Raises:
            DiskFullError: there is no room.
            DownloadFailedError: the disk fails.
        """
        self._pile = _Pile()
        self._unwritten.clear()
        send, receive = anyio.create_memory_object_stream[None](_PIECES_WAITING)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write, receive, group.cancel_scope)
                async with send:
                    broke = await self._read(content, total_bytes, send)
        except anyio.get_cancelled_exc_class():
            await self._rescue()
            raise
        if self._disk_error is not None:
            raise self._disk_error
        return broke

    async def _read(
        self, content: aiohttp.StreamReader, total_bytes: int | None, send: MemoryObjectSendStream[None]
    ) -> str | None:
        broke = None
        with self._watch.connection():
            try:
                while total_bytes is None or self._watch.done_bytes < total_bytes:
                    if (chunk := await self._pile.next_chunk(content)) == b"":
                        break
                    if chunk is not None:
                        self._count(chunk, total_bytes)
                    if self._pile.is_due:
                        await self._pass_on(send)
            except NETWORK_ERRORS as error:
                broke = why(error)
        await self._pass_on(send)
        return broke or self._watch.trouble

    def _count(self, chunk: bytes, total_bytes: int | None) -> None:
        """Pile it up; what goes beyond the file's size is dropped."""
        self.received_bytes += len(chunk)
        if total_bytes is not None:
            chunk = chunk[: total_bytes - self._watch.done_bytes]
        self._watch.done_bytes += len(chunk)
        self._pile.add(chunk)

    async def _pass_on(self, send: MemoryObjectSendStream[None]) -> None:
        """Hand the pile to the thread; waits while it is behind. What is handed over is never taken back."""
        self._unwritten.append(self._pile.taken())
        self._watch.held_up = True
        await send.send(None)
        self._watch.held_up = False

    async def _write(self, receive: MemoryObjectReceiveStream[None], scope: anyio.CancelScope) -> None:
        async with receive:
            async for _ in receive:
                try:
                    await self._store_all()
                except RbeeError as error:
                    self._disk_error = error
                    scope.cancel()
                    return

    async def _rescue(self) -> None:
        """Who cancels waits for what had come, at most a few pieces."""
        if self._disk_error is not None:
            return
        self._unwritten.append(self._pile.taken())
        with anyio.move_on_after(_RESCUE_S, shield=True):
            try:
                await self._store_all()
            except RbeeError as error:
                _LOG.info("what had come before the cancellation is not kept: %s", error)

    async def _store_all(self) -> None:
        while self._unwritten:
            await anyio.to_thread.run_sync(self._store, self._unwritten[0])
            self._unwritten.popleft()

    def _store(self, pieces: list[bytes]) -> None:
        size_bytes = sum(map(len, pieces))
        # again for each piece: others write to that disk, too, and a server may send without an end
        require_space(size_bytes, self._partial.free_bytes, self._limits, where=str(self._partial.target.parent))
        self._partial.append(pieces)


class _Pile:
    """Chunks on their way to the disk: passed on when they are many, or old."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._due_at_s = math.inf

    @property
    def is_due(self) -> bool:
        return self._size_bytes >= _PIECE_BYTES or anyio.current_time() >= self._due_at_s

    async def next_chunk(self, content: aiohttp.StreamReader) -> bytes | None:
        """What comes next; empty at the end; None if nothing came before the pile is due."""
        if (chunk := content.read_nowait()) or content.at_eof():
            return chunk  # a timer for each chunk would cost more than the chunk
        with anyio.CancelScope(deadline=self._due_at_s):
            return await content.readany()
        return None

    def add(self, chunk: bytes) -> None:
        if not self._chunks:
            self._due_at_s = anyio.current_time() + _FLUSH_S
        self._chunks.append(chunk)
        self._size_bytes += len(chunk)

    def taken(self) -> list[bytes]:
        """All of them; the pile is empty."""
        chunks, self._chunks, self._size_bytes, self._due_at_s = self._chunks, [], 0, math.inf
        return chunks
