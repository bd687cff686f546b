"""The HTTP server of every daemon: bound before anything else, with the limits that uvicorn does not have.

uvicorn's own signal handling and lifespan are not used: a daemon's lifetimes are blocks around `serving`.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from h11 import IDLE
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from rbee_shared.errors import InvalidRequestError, PortInUseError
from rbee_shared.port_holder import port_holder

_LOG = logging.getLogger("rbee.server")
_MAX_HEADER_BYTES = 64 * 1024
_BACKLOG = 2048
_MAX_PORT = 65_535
_LEAST_DRAIN_S = 1.0
_CANCELLED_TASKS_S = 1.0
_DRAIN_POLL_S = 0.005


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 lets the system choose.

    Raises:
        PortInUseError: another program holds the port; the message names it and its pid.
        InvalidRequestError: there is no such address.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
            raise PortInUseError(_why_not(host, port, error), details={"port": port}) from None
        raise InvalidRequestError(
            f"cannot listen on {host!r}: {error.strerror or error}", hint="Bind to 127.0.0.1, ::1 or 0.0.0.0."
        ) from None


def bind_first_free(host: str, first_port: int, tries: int) -> socket.socket:
    """A socket on the first of `tries` ports that nobody holds; port 0 lets the system choose.

    Raises:
        PortInUseError: all of them are held.
    """
    last_port = min(first_port + tries - 1, _MAX_PORT)
    for port in range(first_port, last_port + 1):
        try:
            return _listen(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise PortInUseError(_why_not(host, port, error), details={"port": port}) from None
    raise PortInUseError(f"every port from {first_port} to {last_port} is held", details={"port": first_port})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle off only where the protocol is named: without it every first token is 40 ms late
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the library takes it by position
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """The base URL at which a bound socket answers from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is held by {port_holder(port) or 'another program (of another user)'}"
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"


class BoundedH11Protocol(H11Protocol):
    """h11 (which bounds the size of a header), plus deadlines.

    A client that drips its header is hung up on, and one that does not take the end of a closed response is cut off:
    closing alone waits for it for ever.
    """

    header_s = 10.0
    _deadline: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _was_closing = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is IDLE and self.conn.trailing_data[0]:
            self._arm()
        elif self.conn.their_state is not IDLE:
            self._disarm()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._forget_untaken()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._forget_untaken()
        self._untaken = self.loop.call_later(self.header_s, self._check_taken)

    @override
    def resume_writing(self) -> None:
        self._forget_untaken()
        super().resume_writing()

    def _check_taken(self) -> None:
        if self._was_closing:
            self.transport.abort()
            return
        self._was_closing = self.transport.is_closing()
        self._untaken = self.loop.call_later(self.header_s, self._check_taken)

    def _forget_untaken(self) -> None:
        self._was_closing = False
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_s, self._give_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            _LOG.info("a client sent no complete request within %.0f s: hanging up", self.header_s)
            self.transport.close()


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, header_s: float, drain_s: float) -> AsyncGenerator[None]:
    """Serve `app` on `listener` for the length of the block; open streams get `drain_s` to end after it."""
    protocol = type("Protocol", (BoundedH11Protocol,), {"header_s": header_s})
    config = Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_keep_alive=30,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):  # bounded: every wait in it is
            await _drain(server, listener, max(_LEAST_DRAIN_S, drain_s))


async def _drain(server: uvicorn.Server, listener: socket.socket, drain_s: float) -> None:
    """Take nothing new, let answers end, cancel those that do not.

    What uvicorn's own `shutdown` does, which looks every 100 ms and sleeps once before: the three daemons of one answer
    end one after another, and a person waits for the sum.
    """
    for accepting in server.servers:
        accepting.close()
    listener.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    if await _drained(server, drain_s):
        return
    _LOG.warning("cancelling %d requests that did not end within %.0f s", len(server.server_state.tasks), drain_s)
    for task in list(server.server_state.tasks):
        task.cancel()
    await _drained(server, _CANCELLED_TASKS_S)


async def _drained(server: uvicorn.Server, within_s: float) -> bool:
    """Whether every connection and request has ended. uvicorn tells nobody, hence the polling."""
    state = server.server_state
    with anyio.move_on_after(within_s):
        while state.connections or state.tasks:  # noqa: ASYNC110
            await anyio.sleep(_DRAIN_POLL_S)
        return True
    return False
