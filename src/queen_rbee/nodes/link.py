"""The one SSH connection to a node, made anew when it breaks, for as long as somebody uses it.

Guarantees: what was forwarded before a break is forwarded after it, under the same local ports where that is possible;
who waits for the connection is told in bounded time that it is back, or that it will not be.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import anyio
from anyio.abc import TaskGroup, TaskStatus

from queen_rbee.callbacks import Callbacks
from queen_rbee.reach import port_of
from queen_rbee.ssh.connection import SshConnection, connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.clocks import Clocks
from rbee_shared.errors import NodeUnreachableError, RbeeError
from rbee_shared.narration import Level, Narrator
from rbee_shared.units import format_seconds

_LOG = logging.getLogger("rbee.queen.link")
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0

Back = Callable[[], Awaitable[None]]


class NodeLink:
    """Made by `Links.use`. `patience_s`: how long after a break it is worth trying; then it is over for good."""

    def __init__(self, target: Target, dialler: Dialler, callbacks: Callbacks, clocks: Clocks, tell: Narrator) -> None:
        self.target = target
        self._dialler = dialler
        self._callbacks = callbacks
        self._patience_s = clocks.hive_lease_s + clocks.hive_drain_s
        self._tell = tell
        self._connection: SshConnection | None = None
        self._changed = anyio.Event()
        self._is_over = False
        self._local_ports: dict[int, int] = {}
        self._forwarding = anyio.Lock()
        self._back_port: int | None = None
        self._when_back: list[Back] = []

    @property
    def is_over(self) -> bool:
        """It broke, and could not be made anew in time."""
        return self._is_over

    @property
    def is_coming_back(self) -> bool:
        """It broke, and is being made anew."""
        return not self._is_over and (self._connection is None or not self._connection.is_open)

    @property
    def back_url(self) -> str:
        """Where that machine's hive reaches this queen, after `open_back`; another one after a break, perhaps."""
        return f"http://127.0.0.1:{self._back_port}"

    @contextmanager
    def when_back(self, action: Back) -> Generator[None]:
        """Call `action` after every reconnection, for the length of the block."""
        self._when_back.append(action)
        try:
            yield
        finally:
            self._when_back.remove(action)

    async def wait_over(self) -> None:
        """Return when it is lost for good."""
        while not self._is_over:
            await self._changed.wait()

    async def connection(self) -> SshConnection:
        """The connection, waited for if it is being made anew.

        Raises:
            NodeUnreachableError: it is lost for good.
        """
        while True:
            if self._is_over:
                raise NodeUnreachableError(f"the SSH connection to {self.target.node} broke off and did not come back")
            if self._connection is not None and self._connection.is_open:
                return self._connection
            await self._changed.wait()

    async def url(self, url: str) -> str:
        """Where a program of that machine that calls itself `url` answers from here.

        Raises:
            NodeUnreachableError: it is lost for good.
            BadPeerError: that is no URL of a program.
        """
        port = port_of(url)
        connection = await self.connection()
        async with self._forwarding:
            if port not in self._local_ports:
                await connection.require_forwarding(port)
                self._local_ports[port] = await connection.forward(port)
        return f"http://127.0.0.1:{self._local_ports[port]}"

    async def open_back(self) -> None:
        """Let that machine's hive reach this queen, inside the connection."""
        connection = await self.connection()
        async with self._forwarding:
            if self._back_port is None:
                self._back_port = await connection.forward_back(await self._callbacks.socket_path())

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Connect, say so, and stay connected; ends when it is over.

        Raises:
            RbeeError: why there was no first connection.
        """
        async with connected(self._dialler, self.target) as connection:
            self._connection = connection
            task_status.started()
            await connection.wait_closed()
        while not self._is_over:
            await self._once_more()

    async def _once_more(self) -> None:
        self._connection = None
        broke_at_s = anyio.current_time()
        self._say("link_lost", f"the SSH connection to {self.target.node} broke off; reconnecting", "⛓️", "warning")
        dialler, pause_s = replace(self._dialler, tries=1), _FIRST_PAUSE_S
        while (away_s := anyio.current_time() - broke_at_s) < self._patience_s:
            try:
                async with connected(dialler, self.target) as connection:
                    await self._restore(connection)
                    self._say(
                        "link_back", f"connected to {self.target.node} again after {format_seconds(away_s)}", "🔗"
                    )
                    await connection.wait_closed()
                    return
            except RbeeError as error:
                _LOG.info("no connection to %s: %s", self.target, error)
            except Exception:  # noqa: BLE001 - what was not foreseen about one node ends neither its link nor its queen
                _LOG.exception("cannot connect to %s again", self.target)
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self.end()

    def end(self) -> None:
        """Nobody connects any more: who waits is told."""
        self._is_over = True
        self._change()

    async def _restore(self, connection: SshConnection) -> None:
        async with self._forwarding:
            for port, local_port in self._local_ports.items():
                self._local_ports[port] = await connection.forward(port, local_port)
            if self._back_port is not None:
                path = await self._callbacks.socket_path()
                self._back_port = await connection.forward_back(path, self._back_port)
        self._connection = connection
        for action in list(self._when_back):
            await action()
        self._change()  # who waits finds everything as it was

    def _say(self, action: str, text: str, cute: str, level: Level = "info") -> None:
        self._tell.tell(action, text, cute=cute, level=level, node=self.target.node)

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@dataclass
class _Use:
    link: NodeLink
    scope: anyio.CancelScope
    users: int = 0


@dataclass
class Links:
    """The links in use, one for each node. `group` is where they stay connected."""

    dialler: Dialler
    callbacks: Callbacks
    clocks: Clocks
    narrator: Narrator
    group: TaskGroup
    _uses: dict[str, _Use] = field(default_factory=dict)
    _opening: dict[str, anyio.Lock] = field(default_factory=dict)

    @asynccontextmanager
    async def use(self, target: Target) -> AsyncGenerator[NodeLink]:
        """The link to that node for the length of the block; the last who leaves closes it.

        Raises:
            RbeeError: why there is no connection.
        """
        use = await self._take(target)
        use.users += 1
        try:
            yield use.link
        finally:
            use.users -= 1
            if not use.users:
                use.scope.cancel()
                if self._uses.get(target.node) is use:
                    del self._uses[target.node]

    async def _take(self, target: Target) -> _Use:
        async with self._opening.setdefault(target.node, anyio.Lock()):
            use = self._uses.get(target.node)
            if use is None or use.link.is_over or use.link.target != target:
                use = _Use(
                    NodeLink(target, self.dialler, self.callbacks, self.clocks, self.narrator), anyio.CancelScope()
                )
                await self.group.start(self._run, use)
                self._uses[target.node] = use
            return use

    async def _run(self, use: _Use, *, task_status: TaskStatus[None]) -> None:
        try:
            with use.scope:
                await use.link.run(task_status=task_status)
        finally:
            use.link.end()
