"""A TCP proxy in front of a worker that cuts its answers at chosen bytes, as networks do.

Everything lives in the test's own event loop.
"""

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import anyio
from anyio.abc import SocketAttribute, SocketStream

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


@dataclass(frozen=True)
class Cut:
    """After `at` bytes of an answer its reader sees the connection closed or reset, or nothing more at all.

    `unnoticed`: the worker's side stays open, and what it still sends is lost.
    """

    at: int
    how: Literal["close", "reset", "stall"] = "close"
    unnoticed: bool = False


@dataclass
class CuttingProxy:
    """`cuts` are for the next answers to `/execute`, the first one first; later ones pass whole.

    `is_down`: connections are reset as soon as they are made. `requests`: method and path of each, in order.
    """

    target: tuple[str, int]
    url: str = ""
    cuts: list[Cut] = field(default_factory=list)
    is_down: bool = False
    requests: list[str] = field(default_factory=list)
    down_after_cut: bool = False
    was_cut: anyio.Event = field(default_factory=anyio.Event)

    def count(self, path: str) -> int:
        return self.requests.count(f"POST {path}")

    async def handle(self, reader: SocketStream) -> None:
        async with reader:
            if self.is_down:
                _reset(reader)
                return
            with suppress(*_BROKEN):
                async with await anyio.connect_tcp(*self.target) as worker:
                    await _Connection(self, reader, worker).run()


@dataclass
class _Connection:
    proxy: CuttingProxy
    reader: SocketStream
    worker: SocketStream
    cut: Cut | None = None
    passed_bytes: int = 0

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._requests)
            await self._answers()
            group.cancel_scope.cancel()

    async def _requests(self) -> None:
        with suppress(*_BROKEN):
            async for chunk in self.reader:
                self._look_at(chunk)
                await self.worker.send(chunk)
            if self.cut is None or not self.cut.unnoticed:
                await self.worker.send_eof()

    def _look_at(self, chunk: bytes) -> None:
        if not chunk.startswith((b"POST ", b"GET ")):
            return
        method, path = chunk.split(b" ", 2)[:2]
        self.proxy.requests.append(f"{method.decode()} {path.decode()}")
        if path == b"/execute" and self.proxy.cuts:
            self.cut, self.passed_bytes = self.proxy.cuts.pop(0), 0

    async def _answers(self) -> None:
        with suppress(*_BROKEN):
            async for chunk in self.worker:
                if self.cut is None:
                    await self.reader.send(chunk)
                    continue
                passing = chunk[: max(0, self.cut.at - self.passed_bytes)]
                self.passed_bytes += len(chunk)
                if passing:
                    await self.reader.send(passing)
                if self.passed_bytes >= self.cut.at:
                    await self._sever(self.cut)
                    return

    async def _sever(self, cut: Cut) -> None:
        self.proxy.is_down = self.proxy.down_after_cut
        self.proxy.was_cut.set()
        if cut.how == "reset":
            _reset(self.reader)
        if cut.how != "stall":
            await self.reader.aclose()
        if cut.unnoticed or cut.how == "stall":
            async for _ in self.worker:
                pass


def _reset(stream: SocketStream) -> None:
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


@asynccontextmanager
async def cutting_proxy(host: str, port: int) -> AsyncGenerator[CuttingProxy]:
    """A proxy that is listening."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        proxy = CuttingProxy((host, port))
        proxy.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        group.start_soon(listener.serve, proxy.handle)
        try:
            yield proxy
        finally:
            group.cancel_scope.cancel()
