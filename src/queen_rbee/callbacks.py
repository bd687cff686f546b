"""Where hives on other machines reach the queen: a listener beside her own, with two routes and a token for each hive.

A UNIX socket for what comes through SSH, so that no user of the other machine meets her open routes; and, for nodes
over plain HTTP, a port of the network address that faces them. Both are opened when the first hive needs them.
"""

import socket
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.types import ASGIApp

from rbee_shared.auth import same_secret
from rbee_shared.clocks import Clocks
from rbee_shared.errors import InvalidApiKeyError
from rbee_shared.ids import new_secret
from rbee_shared.server import bind, serving, url_of

_BACKLOG = 256
_PRIVATE_SOCKET = 0o600


class Callbacks:
    """Made by `open`; `serve_with` names the app before the first hive is told an address."""

    def __init__(self, directory: Path, clocks: Clocks, group: TaskGroup) -> None:
        self._directory = directory
        self._clocks = clocks
        self._group = group
        self._app: ASGIApp | None = None
        self._tokens: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._opening = anyio.Lock()
        self._listens = False

    @classmethod
    @asynccontextmanager
    async def open(cls, clocks: Clocks) -> AsyncGenerator["Callbacks"]:
        """The listeners live for the length of the block."""
        # not below her home: a socket's path may have 107 bytes
        with tempfile.TemporaryDirectory(prefix="rbee-queen-") as directory:
            async with anyio.create_task_group() as group:
                yield cls(Path(directory), clocks, group)
                group.cancel_scope.cancel()

    def serve_with(self, app: ASGIApp) -> None:
        self._app = app

    def new_token(self, node: str) -> str:
        """A token for the hive that is about to serve on that node; what its predecessor had is worth nothing now."""
        self._tokens[node] = new_secret()
        return self._tokens[node]

    def node_of(self, token: str) -> str:
        """Whose token it is.

        Raises:
            InvalidApiKeyError: nobody's, or that of a hive which has been replaced.
        """
        found = [node for node, known in self._tokens.items() if same_secret(token, known)]
        if not found:
            raise InvalidApiKeyError("this token is no hive's of this queen")
        return found[0]

    async def socket_path(self) -> Path:
        """The UNIX socket, listening."""
        path = self._directory / "queen.sock"
        async with self._opening:
            if not self._listens:
                await self._group.start(self._serve, _bind_unix(path))
                self._listens = True
        return path

    async def url_at(self, address: str) -> str:
        """The URL of a port of that address of this machine, listening.

        Raises:
            PortInUseError, InvalidRequestError: it cannot listen there.
        """
        async with self._opening:
            if address not in self._urls:
                listener = bind(address, 0)
                await self._group.start(self._serve, listener)
                self._urls[address] = url_of(listener)
        return self._urls[address]

    async def _serve(self, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
        assert self._app is not None
        drain_s = self._clocks.parent_lost_drain_s
        async with serving(self._app, listener, header_s=self._clocks.header_s, drain_s=drain_s):
            task_status.started()
            await anyio.sleep_forever()


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(_PRIVATE_SOCKET)
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - the library takes it by position
    return listener
