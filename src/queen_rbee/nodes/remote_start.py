"""Starts a hive on another machine, meets it again after its connection broke, and knows when it is over.

A hive that was started or adopted there is minded in a task that holds the node's link for as long as it is known.
"""

import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from queen_rbee.domain.nodes.node import Node
from queen_rbee.domain.nodes.probe_report import Probe
from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.identity import Identity
from queen_rbee.nodes.installer import Version
from queen_rbee.nodes.link import Links, NodeLink
from queen_rbee.nodes.remote_hive import HiveCommand, RemoteHive
from queen_rbee.nodes.shell import Shell
from queen_rbee.nodes.waker import Gone
from queen_rbee.reach import Reach
from queen_rbee.ssh.target import Target
from rbee_shared.clocks import Clocks
from rbee_shared.errors import BadPeerError, NodeUnreachableError, NotInstalledError, RbeeError, RequestTimeoutError
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration, correlation_id

_LOG = logging.getLogger("rbee.queen.remote")
_LINK_S = 2.0
_ENDED_UNSEEN = -1
_NOW_S = 20.0  # its start, its few seconds between TERM and KILL, and the workers that it leaves
_AT_HOME = 'RBEE_HOME=$1; export RBEE_HOME; shift; exec "$@"'


@dataclass(frozen=True)
class Place:
    """Where rbee is on a node: `home` absolute, `program` what starts its `rbee-hive`."""

    node: Node
    home: str
    program: Sequence[str]

    @classmethod
    def of(cls, node: Node, found: Probe) -> "Place":
        """Of what is installed there.

        Raises:
            NotInstalledError: nothing is.
        """
        if found.installed is None:
            raise NotInstalledError(f"rbee is not installed on {node.name}")
        return cls(node, found.home, Version.of(found.home, found.installed).argv("rbee-hive"))


@dataclass(frozen=True)
class _Start:
    place: Place
    command: HiveCommand
    epoch: int
    reach: Reach
    gone: Gone


@dataclass(frozen=True)
class RemoteStart:
    """`group`: where hives are minded; `hear`: what becomes of the lines of a node's hive."""

    clocks: Clocks
    identity: Identity
    arrival: HiveArrival
    links: Links
    hear: Callable[[str, Narration], None]
    stopping: Callable[[], bool]
    group: TaskGroup

    async def start(self, place: Place, reach: Reach, options: Sequence[str], gone: Gone) -> HiveEntry:
        """Start a hive there and wait for its first heartbeat.

        Raises:
            RbeeError: what kept it from that; nothing of it runs then.
        """
        epoch = await self.arrival.contacts.catalog.begin_epoch()
        options = ["--name", place.node.name, *options]
        start = _Start(place, HiveCommand(place.home, place.program, options), epoch, reach, gone)
        hive = await self.group.start(self._mind, start)
        return await self.arrival.started(place.node.name, hive, reach, epoch)

    async def keep(self, place: Place, entry: HiveEntry) -> None:
        """Hold the node's link, from now on and for as long as an adopted hive is known."""
        await self.group.start(self._keep, place, entry)

    async def _mind(self, start: _Start, *, task_status: TaskStatus[RemoteHive]) -> None:
        place = start.place
        node = place.node.name

        def hear(line: Narration) -> None:
            self.hear(node, line)

        async with self.links.use(Target.of(place.node)) as link:
            hive = RemoteHive(node, place.home, hear, partial(self._end, link, place))
            async with (await link.connection()).talking(start.command.line()) as talk:
                await talk.write(self._handshake(start).line())
                task_status.started(hive)
                with _logged(node), link.when_back(partial(self._meet_again, link, place.node, hive)):
                    await hive.listen(talk, start.command.nonce)
                    if hive.returncode is None:
                        await self._outlives(link, place, hive)
        how = "its node cannot be reached" if hive.returncode is None else _how(hive.returncode)
        hive.gone(_ENDED_UNSEEN)
        start.gone(hive, how, expected=self.stopping() or hive.listening is None)

    async def _outlives(self, link: NodeLink, place: Place, hive: RemoteHive) -> None:
        """The connection that it was started through is gone: mind it until it has ended, or is given up."""
        contacts, node = self.arrival.contacts, place.node
        entry = contacts.hives.get(node.name)
        if entry is None or entry.process is not hive:
            await self._end_left(link, place)
            return
        if node.transport == "http":  # the way to it is another one, and its heartbeats say whether it is there
            if entry.url:
                contacts.follow(entry, hive.heard)
            await _first_of(hive.wait_exit, entry.forgotten.wait)
        else:
            await _first_of(hive.wait_exit, entry.forgotten.wait, link.wait_over)
        if hive.returncode is None and entry.forgotten.is_set() and not entry.is_gone:
            await self._end_left(link, place)

    async def _end_left(self, link: NodeLink, place: Place) -> None:
        """End what was given up while nobody could reach it, unless it has been taken again by then."""
        with suppress(NodeUnreachableError):
            await link.connection()
            async with self.arrival.contacts.lock(place.node.name):
                if self.arrival.contacts.hives.get(place.node.name) is None:
                    await self._end(link, place)

    def _handshake(self, start: _Start) -> Handshake:
        callback = start.reach.callback
        return Handshake.from_afar(
            token=self.identity.token,
            epoch=start.epoch,
            queen_url=callback.url,
            queen_id=self.identity.queen_id,
            queen_token=callback.token,
            correlation_id=correlation_id.get(),
        )

    async def _keep(self, place: Place, entry: HiveEntry, *, task_status: TaskStatus[None]) -> None:
        node = place.node
        async with self.links.use(Target.of(node)) as link:
            entry.end = partial(self._end, link, place)
            with _logged(node.name), link.when_back(partial(self._meet_again, link, node, None)):
                task_status.started()
                await _first_of(entry.forgotten.wait, link.wait_over)
                if entry.to_stop and not entry.is_gone:
                    await self._end_left(link, place)
        if not entry.forgotten.is_set():
            self.arrival.contacts.lose(entry, "its node cannot be reached")

    async def _meet_again(self, link: NodeLink, node: Node, hive: RemoteHive | None) -> None:
        """The connection is back: see that it is still that hive, tell it where its queen is now, and hear it.

        Raises:
            NodeUnreachableError, RequestTimeoutError: the connection is gone again, or as good as gone.
        """
        contacts = self.arrival.contacts
        entry = contacts.hives.get(node.name)
        if node.transport == "http" or entry is None or entry.process is not hive or not entry.own_url:
            return
        try:
            entry.url = await self._same(link, entry)
            await self.arrival.adopt(entry)
        except (NodeUnreachableError, RequestTimeoutError):
            raise
        except RbeeError as error:
            _LOG.warning("the hive at %s is not what it was before the break: %s", node.name, error)
            if hive is not None:
                hive.gone(_ENDED_UNSEEN)  # whoever minds it tells of it
            else:
                contacts.lose(entry, f"after the connection broke off: {error.message}")
                contacts.note_trouble(node.name, error)
        else:
            contacts.follow(entry, hive.heard if hive is not None else entry.narrated)

    async def _same(self, link: NodeLink, entry: HiveEntry) -> str:
        """Where the hive of that entry answers now. Whoever else has its port by now is told nothing.

        Raises:
            NodeUnreachableError, RequestTimeoutError: the connection is gone again, or as good as gone.
            BadPeerError: that hive has ended.
        """
        url = await entry.reach.url(entry.own_url)
        health = await self.arrival.looked_at(url)
        if health is None and link.is_coming_back:
            raise NodeUnreachableError(f"the connection to {entry.node} broke off again")
        if health is None or health.get("instance") != entry.hive_id:
            raise BadPeerError(f"the hive at {entry.node} has ended meanwhile")
        return url

    async def _end(self, link: NodeLink, place: Place) -> bool:
        """End it over SSH, now; whether it is gone."""
        try:
            with anyio.fail_after(_LINK_S):
                connection = await link.connection()
            return await end_remotely(connection, place, _NOW_S, now=True)
        except (RbeeError, TimeoutError) as error:
            _LOG.warning("the hive at %s cannot be ended over SSH: %s", place.node.name, error)
            return False


async def end_remotely(shell: Shell, place: Place, timeout_s: float, *, now: bool = False) -> bool:
    """End a node's hive by its own command there, which verifies whom it kills. Whether it is gone.

    `now`: without asking it again, and without waiting for its drain.

    Raises:
        SshUnreachableError, RequestTimeoutError: nobody knows.
    """
    stop = [*place.program, "stop", "--now" if now else "--kill"]
    command = command_line(["/bin/sh", "-c", _AT_HOME, "sh", place.home, *stop])
    finished = await shell.run(command, timeout_s=timeout_s)
    if finished.status:
        _LOG.warning(
            "on %s `rbee-hive stop` ended with %d: %r", place.node.name, finished.status, finished.stderr[-300:]
        )
    return finished.status == 0


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of them does."""
    async with anyio.create_task_group() as group:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            group.cancel_scope.cancel()

        for one in waits:
            group.start_soon(wait, one)


@contextmanager
def _logged(node: str) -> Generator[None]:
    """What was not foreseen about one hive is logged, and ends no more than that hive."""
    try:
        yield
    except Exception:  # noqa: BLE001 - it would end the queen
        _LOG.exception("the hive at %s is given up", node)


def _how(status: int) -> str:
    return "nobody saw how it ended" if status == _ENDED_UNSEEN else f"exit {status}"
