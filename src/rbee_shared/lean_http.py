"""One HTTP exchange over one connection, by h11 on anyio: for programs that must be up before a person notices.

httpx2 costs 80 ms to import, which is half of what a warm answer may take; h11 costs 8. What is left out is what the
keeper never needs: pools, redirects, cookies, proxies, https. Every wait is bounded; nothing is ever retried here.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import h11

from rbee_shared.errors import BadPeerError, InvalidRequestError, PayloadTooLargeError, QueenLostError, RbeeError
from rbee_shared.version import __version__

_READ_BYTES = 64 * 1024
_MAX_JSON_BYTES = 8 * 1024 * 1024
_DEFAULT_PORT = 80


class SilentPeerError(QueenLostError):
    """It is connected, and says nothing."""


@dataclass(frozen=True)
class Address:
    """Where a base URL leads."""

    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str) -> Address:
    """Read `http://host[:port][/path]`.

    Raises:
        InvalidRequestError: it is something else.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme != "http" or not host or parts.username or parts.query or parts.fragment:
        raise InvalidRequestError(
            f"{url!r} is not the address of a queen", hint="Write http://HOST:PORT; https is not spoken here."
        )
    return Address(host, port or _DEFAULT_PORT, parts.path.rstrip("/"))


class Answer:
    """The head of a response, and its body as it comes."""

    def __init__(self, status: int, headers: Mapping[str, str], body: AsyncGenerator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk, as it arrives."""
        return self._body

    async def read(self) -> bytes:
        """The whole body, at most 8 MiB of it."""
        data = b""
        async for chunk in self._body:
            data += chunk
            if len(data) > _MAX_JSON_BYTES:
                raise PayloadTooLargeError("the answer is larger than 8 MiB")
        return data


@asynccontextmanager
async def exchange(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
    connect_s: float,
    silence_s: float,
) -> AsyncGenerator[Answer]:
    """Send a request and give its answer for the length of the block; leaving the block hangs up.

    Args:
        silence_s: the longest time without a byte, before the answer and within it.
    Raises:
        QueenLostError: nobody can be connected to, or the connection broke.
        SilentPeerError: nothing came for `silence_s`.
        BadPeerError: what answers does not speak HTTP.
    """
    target, _, query = url.partition("?")
    address = parse_url(target)
    stream = await _connect(address, connect_s)
    async with stream:
        wire = _Wire(stream, f"{method} {target}", silence_s)
        await wire.send(_request(method, address, query, headers, body))
        head = await wire.head()
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers}
        async with aclosing(wire.body()) as chunks:
            yield Answer(head.status_code, fields, chunks)


async def _connect(address: Address, connect_s: float) -> anyio.abc.SocketStream:
    try:
        with anyio.fail_after(connect_s):
            return await anyio.connect_tcp(address.host, address.port)
    except TimeoutError:
        raise QueenLostError(f"{address.netloc}: no connection within {connect_s:.0f} s") from None
    except OSError as error:
        raise QueenLostError(f"{address.netloc}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # one per address that the name has
        cause = cause.exceptions[0]
    number = getattr(cause, "errno", None) or error.errno
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(error)


def _request(
    method: str, address: Address, query: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> list[h11.Event]:
    data = json.dumps(body).encode() if body is not None else b""
    fields = {
        "Host": address.netloc,
        "User-Agent": f"rbee/{__version__}",
        "Connection": "close",
        "Content-Length": str(len(data)),
        **({"Content-Type": "application/json"} if data else {}),
        **headers,
    }
    target = f"{address.path or '/'}{'?' + query if query else ''}"
    events: list[h11.Event] = [h11.Request(method=method, target=target, headers=list(fields.items()))]
    if data:
        events.append(h11.Data(data=data))
    return [*events, h11.EndOfMessage()]


class _Wire:
    """h11's state machine on a socket."""

    def __init__(self, stream: anyio.abc.SocketStream, what: str, silence_s: float) -> None:
        self._stream = stream
        self._what = what
        self._silence_s = silence_s
        self._http = h11.Connection(h11.CLIENT)
        self._heard = self._has_head = self._ended = False

    async def send(self, events: list[h11.Event]) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        try:
            with anyio.fail_after(self._silence_s):
                await self._stream.send(data)
        except TimeoutError:
            raise self._silent() from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # a server may answer and hang up before it has read a body that it does not want: read that answer
            return

    async def head(self) -> h11.Response:
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                self._has_head = True
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise BadPeerError(f"{self._what}: hung up without an answer")

    async def body(self) -> AsyncGenerator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        try:
            event = self._http.next_event()
            while event is h11.NEED_DATA:
                self._http.receive_data(await self._receive())
                event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._ended and (self._has_head or not self._heard):
                raise QueenLostError(f"{self._what}: the connection broke") from None
            raise BadPeerError(f"{self._what}: what answers there does not speak HTTP ({error})") from None
        return event  # type: ignore[return-value]  # NEED_DATA is excluded by the loop

    async def _receive(self) -> bytes:
        try:
            with anyio.fail_after(self._silence_s):
                data = await self._stream.receive(_READ_BYTES)
        except TimeoutError:
            raise self._silent() from None
        except anyio.EndOfStream:
            self._ended = True
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise QueenLostError(f"{self._what}: the connection broke") from None
        self._heard = True
        return data

    def _silent(self) -> RbeeError:
        return SilentPeerError(f"{self._what}: no answer within {self._silence_s:.0f} s")
