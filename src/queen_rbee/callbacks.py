"""Where hives on other machines reach the queen: a listener beside her own, with two routes and a token for each hive.

A UNIX socket for what comes through SSH, so that no user of the other machine meets her open routes; and, for nodes
over plain HTTP, a port of the network address that faces them. Both are opened when the first hive needs them.
"""

import os
import socket
import stat
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
from anyio.abc import TaskGroup, TaskStatus
from starlette.types import ASGIApp

from rbee_shared.auth import same_secret
from rbee_shared.clocks import Clocks
from rbee_shared.errors import InvalidApiKeyError
from rbee_shared.ids import new_secret
from rbee_shared.server import bind, serving, url_of

_BACKLOG = 256
_ELSEWHERE = "rbee-queen-"
_PRIVATE_SOCKET = 0o600
_LONGEST_PATH_BYTES = 103  # of a socket, on macOS; Linux has four more


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
        self._path: Path | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, clocks: Clocks) -> AsyncGenerator["Callbacks"]:
        """The listeners live for the length of the block. `directory`: for the socket, private to its user."""
        async with anyio.create_task_group() as group:
            callbacks = cls(directory, clocks, group)
            try:
                yield callbacks
            finally:
                if callbacks._path is not None:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(_remove, callbacks._path, directory)
            group.cancel_scope.cancel()

    def serve_with(self, app: ASGIApp) -> None:
        self._app = app

    def new_token(self, node: str) -> str:
        """A token for the hive that is about to serve on that node; what its predecessor had is worth nothing now."""
        self._tokens[node] = new_secret()
        return self._tokens[node]

    def revoke(self, node: str) -> None:
        """The hive of that node is gone: its token opens nothing any more."""
        self._tokens.pop(node, None)

    def node_of(self, token: str) -> str:
        """Whose token it is.

        Raises:
            InvalidApiKeyError: nobody's, or that of a hive which has been replaced or is gone.
        """
        found = [node for node, known in self._tokens.items() if same_secret(token, known)]
        if not found:
            raise InvalidApiKeyError("this token is no hive's of this queen")
        return found[0]

    async def socket_path(self) -> Path:
        """The UNIX socket, listening."""
        async with self._opening:
            if self._path is None:
                path, listener = await anyio.to_thread.run_sync(_bind_unix, self._directory)
                await self._group.start(self._serve, listener)
                self._path = path
            return self._path

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


def _bind_unix(directory: Path) -> tuple[Path, socket.socket]:
    """A socket that only this user may open. What queens that were killed have left there is removed."""
    _remove_left_in(directory)
    path = directory / f"queen-{os.getpid()}.sock"
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        _remove_left_elsewhere()
        path = Path(tempfile.mkdtemp(prefix=_ELSEWHERE)) / path.name
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(_PRIVATE_SOCKET)
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - the library takes it by position
    return path, listener


def _remove_left_in(directory: Path) -> bool:
    """Whether there was something of a queen that is gone."""
    left = [path for path in directory.glob("queen-*.sock") if not (_is_alive(path) or _answers(path))]
    for path in left:
        path.unlink(missing_ok=True)
    return bool(left)


def _remove_left_elsewhere() -> None:
    """An empty directory stays: it may be another queen's who is about to listen in it."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_ELSEWHERE}*"):
        with suppress(OSError):
            facts = directory.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and _remove_left_in(directory):
                directory.rmdir()


def _is_alive(path: Path) -> bool:
    pid = path.stem.removeprefix("queen-")
    return pid.isdecimal() and psutil.pid_exists(int(pid))


def _answers(path: Path) -> bool:
    """A queen in another container, which has other process numbers, may share the directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # noqa: FBT003 - the library takes it by position
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _remove(path: Path, directory: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent != directory:
        path.parent.rmdir()
