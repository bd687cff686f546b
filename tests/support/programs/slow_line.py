"""A TCP proxy that holds every byte back for a while, in both directions: a line to a machine far away.

slow_line.py PORT HOST HOST_PORT DELAY_MS  listens on loopback until it is ended, and says "slow" when it does.
"""

import sys
from dataclasses import dataclass

import anyio
from anyio.abc import SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_ON_THE_WAY = 100_000
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)
Chunk = tuple[float, bytes]


@dataclass(frozen=True)
class Line:
    host: str
    port: int
    delay_s: float

    async def carry(self, near: SocketStream) -> None:
        async with near, await anyio.connect_tcp(self.host, self.port) as far, anyio.create_task_group() as group:
            for source, target in ((near, far), (far, near)):
                entry, end = anyio.create_memory_object_stream[Chunk](_ON_THE_WAY)
                group.start_soon(self._take_in, source, entry)
                group.start_soon(self._let_out, end, target)

    async def _take_in(self, source: SocketStream, entry: MemoryObjectSendStream[Chunk]) -> None:
        async with entry:
            try:
                async for data in source:
                    await entry.send((anyio.current_time() + self.delay_s, data))
            except _BROKEN:
                return

    async def _let_out(self, end: MemoryObjectReceiveStream[Chunk], target: SocketStream) -> None:
        async with end:
            try:
                async for due_s, data in end:
                    await anyio.sleep_until(due_s)
                    await target.send(data)
                await target.send_eof()
            except _BROKEN:
                await target.aclose()


async def main(port: int, line: Line) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    print("slow", flush=True)
    await listener.serve(line.carry)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), Line(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) / 1000))
