"""The client that measures streams over HTTP: a program of its own, standard library only, a few microseconds a chunk.

It shares the machine's cores with what it measures, so nothing is parsed while tokens come: a chunk's time is noted and
the marker counted in it. One JSON line on stdin says what to ask (`asking.py` writes it), one on stdout what came.
"""

import json
import selectors
import socket
import sys
import time
from typing import Any

_CHUNK_BYTES = 16_384
_TOLD_BYTES = 2_000


class _Stream:
    """One request and what comes of it.

    `follows`: (stream, frames) that it waits for before it is sent; `ends_all`: nobody waits for the others after it.
    """

    def __init__(self, request: dict[str, Any], address: tuple[str, int], marker: bytes) -> None:
        self.follows: tuple[int, int] | None = tuple(request["follows"]) if request["follows"] else None
        self.keeps_all = bool(request["keeps_all"])
        self.ends_all = bool(request["ends_all"])
        body = request["body"].encode()
        head = f"POST {request['path']} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._message = head.encode() + body
        self._marker = marker
        self._tail = b""
        self._chunks: list[bytes] = []
        self._address = address
        self.sent_s = 0.0
        self.at_s: list[float] = []
        self.frames: list[int] = []
        self.frames_seen = 0

    def connect(self) -> None:
        """Only when it is due: a server hangs up on who says nothing."""
        self.socket = socket.create_connection(self._address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(self._message)
        self.socket.settimeout(0)

    def receive(self) -> bool:
        """Take what is there; False at the end."""
        chunk = self.socket.recv(_CHUNK_BYTES)
        now_s = time.perf_counter()
        self._chunks.append(chunk)
        data = self._tail + chunk
        if count := data.count(self._marker):
            self.at_s.append(now_s)
            self.frames.append(count)
            self.frames_seen += count
        self._tail = data[1 - len(self._marker) :]  # a marker may be cut in two
        return bool(chunk)

    def facts(self) -> dict[str, Any]:
        received = b"".join(self._chunks)
        told = received if self.keeps_all else received[-_TOLD_BYTES:]
        return {
            "sent_s": self.sent_s,
            "at_s": self.at_s,
            "frames": self.frames,
            "status": received.partition(b"\r\n")[0].decode(errors="replace"),
            "told": told.decode(errors="replace"),
        }


def _ask_all(spec: dict[str, Any]) -> dict[str, Any]:
    address = (spec["host"], spec["port"])
    streams = [_Stream(request, address, spec["marker"].encode()) for request in spec["requests"]]
    deadline_s = time.perf_counter() + spec["timeout_s"]
    began_s, cpu_s = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        _send(selector, [stream for stream in streams if not stream.follows])
        late = [stream for stream in streams if stream.follows]
        in_time = _receive(selector, streams, late, deadline_s)
    return {
        "wall_s": time.perf_counter() - began_s,
        "cpu_s": time.process_time() - cpu_s,
        "in_time": in_time,
        "streams": [stream.facts() for stream in streams],
    }


def _receive(selector: selectors.BaseSelector, streams: list[_Stream], late: list[_Stream], deadline_s: float) -> bool:
    """Until all have ended, or the one that `ends_all`; False when nothing more comes before the deadline."""
    while selector.get_map():
        ready = selector.select(max(0.0, deadline_s - time.perf_counter()))
        if not ready:
            return False
        for key, _ in ready:
            if not key.data.receive():
                selector.unregister(key.fileobj)
                if key.data.ends_all:
                    return True
        if late:
            late = _send_due(selector, streams, late)
    return not late


def _send(selector: selectors.BaseSelector, streams: list[_Stream]) -> None:
    for stream in streams:
        stream.connect()
    for stream in streams:
        stream.send()
        selector.register(stream.socket, selectors.EVENT_READ, stream)


def _send_due(selector: selectors.BaseSelector, streams: list[_Stream], late: list[_Stream]) -> list[_Stream]:
    due = [stream for stream in late if stream.follows and streams[stream.follows[0]].frames_seen >= stream.follows[1]]
    _send(selector, due)
    return [stream for stream in late if stream not in due]


if __name__ == "__main__":
    json.dump(_ask_all(json.loads(sys.stdin.readline())), sys.stdout)
