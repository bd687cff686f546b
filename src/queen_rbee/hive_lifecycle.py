"""Wakes the hive a task needs, adopts one that is there, and puts the woken ones back to sleep.

One at a time per node: whoever comes second waits for the first and finds the hive up.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import anyio
import httpx2
from anyio.abc import TaskGroup

from queen_rbee.hive_catalog import HiveCatalog
from queen_rbee.hive_client import HiveClient
from queen_rbee.hive_feed import HiveFeed
from queen_rbee.hive_registry import HiveEntry, HiveRegistry, describe
from queen_rbee.identity import Identity
from queen_rbee.local_launcher import LocalLauncher
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import HiveHeartbeat, NodeState
from rbee_shared.errors import NodeUnreachableError, RbeeError
from rbee_shared.http_client import call
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home
from rbee_shared.run_file import read_run_file

_LOG = logging.getLogger("rbee.queen.hives")
LOCAL_NODE = "localhost"
_WATERMARK_S = 1.0


@dataclass
class HiveLifecycle:
    """Hives of this queen. `group` is the task group in which woken hives are minded."""

    home: Home
    clocks: Clocks
    identity: Identity
    catalog: HiveCatalog
    hives: HiveRegistry
    workers: WorkerRegistry
    launcher: LocalLauncher
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    narrator: Narrator
    group: TaskGroup
    _locks: dict[str, anyio.Lock] = field(default_factory=dict)

    def client_of(self, entry: HiveEntry) -> HiveClient:
        return HiveClient(self.client, entry.url, self.identity.token)

    async def heartbeat(self, beat: HiveHeartbeat) -> bool:
        """Take what a hive reports, after the lines that it said before; a hive that announces itself is adopted.

        False: it is unknown here and does not say where it is, so nothing was taken.
        """
        node = self._node_of(beat)
        known = self.hives.get(node)
        if known is not None:
            await known.wait_heard(beat.narrated, _WATERMARK_S)
        elif beat.url is None:
            return False
        entry = self.hives.heartbeat(node, beat)
        self.workers.update(node, beat.workers)
        if entry.child is None and entry.feed is None:
            self._follow(entry, beat.narrated)
        if known is None:
            await self.catalog.add(node, transport="local")
        return True

    def _node_of(self, beat: HiveHeartbeat) -> str:
        if beat.name is None:
            return self.hives.node_of(beat.hive_id) or beat.hive_id
        return LOCAL_NODE if beat.name == socket.gethostname() else beat.name

    def _follow(self, entry: HiveEntry, after: int) -> None:
        """Hear an adopted hive for as long as it is ours."""
        entry.feed = HiveFeed(self.session, entry.url, self.identity.token, after)
        self.group.start_soon(entry.feed.run, self.launcher.hear)

    async def ensure(self, node: str, tell: Narrator, doing: Callable[[str], None]) -> HiveEntry:
        """The hive of `node`, up and known; woken if it sleeps. `doing` is told what this is waiting for.

        Raises:
            NodeUnreachableError: it was started and never said a word.
            RbeeError: whatever kept it from starting.
        """
        doing(f"waiting for the hive at {node} to wake")
        async with self._locks.setdefault(node, anyio.Lock()):
            entry = self.hives.get(node)
            if entry is not None and entry.state is NodeState.OFFLINE and entry.child is not None:
                await entry.child.terminate(self.clocks.parent_lost_drain_s)  # silent, and it holds the home's lock
            if entry is None or entry.state is NodeState.OFFLINE:
                entry = await self._wake_or_adopt(node, tell)
            if entry.devices is None:
                await self._introduce(entry, tell)
            return entry

    async def _wake_or_adopt(self, node: str, tell: Narrator) -> HiveEntry:
        if not await self.catalog.nodes():
            tell.tell("add_local_node", "no hives found; adding the local machine", cute="🏠")
            await self.catalog.add(node, transport="local")
        return await self._adopt(node, tell) or await self._wake(node, tell)

    async def _adopt(self, node: str, tell: Narrator) -> HiveEntry | None:
        """An operator's hive that runs here already, told to report to this queen; None when there is none."""
        running = read_run_file(self.home.run_file("rbee-hive"))
        if running is None:
            return None
        try:
            health = await call(self.client, "GET", f"{running.url}/health", unreachable=NodeUnreachableError)
        except RbeeError as error:
            _LOG.info("%s is named by the run file and does not answer: %s", running.url, error)
            return None
        if health.get("program") != "rbee-hive" or health.get("instance") != running.instance:
            return None
        tell.tell("adopt_hive", f"adopting the hive that already runs at {running.url}", cute="🤝")
        entry = self.hives.expect(node, running.url, None)
        try:
            await self.client_of(entry).adopt(self.identity.url, self.identity.epoch)
            return await self._first_heartbeat(entry)
        except RbeeError:
            self.hives.remove(node)
            raise

    async def _wake(self, node: str, tell: Narrator) -> HiveEntry:
        tell.tell("wake_hive", f"waking the hive at {node} on {self.launcher.where}", cute="🐝")
        child = await self.launcher.launch(self.group, partial(self._hive_gone, node))
        entry = self.hives.expect(node, "", child)
        try:
            entry.url = (await child.wait_listening(self.clocks.daemon_start_s)).url
            await self._first_heartbeat(entry)
        except BaseException:
            with anyio.CancelScope(shield=True):  # half started it is of no use to anybody
                await child.terminate(self.clocks.parent_lost_drain_s)
            raise
        await child.wait_heard(entry.narrated, _WATERMARK_S)
        return entry

    async def _first_heartbeat(self, entry: HiveEntry) -> HiveEntry:
        with anyio.move_on_after(self.clocks.daemon_start_s):
            await entry.heard.wait()
            return entry
        self.hives.remove(entry.node)
        raise NodeUnreachableError(f"the hive at {entry.node} started and sent no heartbeat")

    async def _introduce(self, entry: HiveEntry, tell: Narrator) -> None:
        tell.tell("first_heartbeat", f"first heartbeat from hive {entry.node}; asking what it has", cute="💓")
        devices = await self.client_of(entry).devices()
        self.hives.learn_devices(entry, devices)
        await self.catalog.seen(entry.node, devices)
        tell.tell("hive_devices", f"hive {entry.node} has {describe(devices)}", cute="🖥️")

    def _hive_gone(self, node: str, how: str, *, expected: bool) -> None:
        """A woken hive has ended."""
        self.hives.remove(node)
        self.workers.forget_node(node)
        if not expected:
            self.narrator.tell("hive_lost", f"the hive at {node} is gone ({how})", cute="💀", level="error")

    async def refresh_workers(self, node: str) -> None:
        """Ask the hive of `node` for its workers now, instead of waiting for its next heartbeat."""
        if (entry := self.hives.get(node)) is not None:
            self.workers.update(node, (await self.client_of(entry).workers()).workers)

    async def watch(self) -> None:
        """Judge every hive by its heartbeats, for ever."""
        while True:
            await anyio.sleep(self.clocks.heartbeat_s / 2)
            for entry, state in self.hives.judged(suspect_s=self.clocks.suspect_s, lost_s=self.clocks.lost_s):
                self._judge(entry, state)

    def _judge(self, entry: HiveEntry, state: NodeState) -> None:
        if entry.state is state or entry.state in {NodeState.STARTING, NodeState.DRAINING}:
            return
        entry.state = state
        if state is NodeState.OFFLINE:
            self.narrator.tell("hive_offline", f"the hive at {entry.node} has gone silent", cute="🔇", level="warning")
            self.workers.forget_node(entry.node)

    async def stop_all(self, *, cascade: bool) -> None:
        """Stop every hive in parallel: woken ones always, adopted ones with `cascade`, standalone ones never."""
        async with anyio.create_task_group() as group:
            for entry in self.hives.all():
                if entry.child is not None or (cascade and not entry.standalone):
                    group.start_soon(self._stop, entry)

    async def _stop(self, entry: HiveEntry) -> None:
        entry.state = NodeState.DRAINING
        try:
            await self.client_of(entry).shutdown()
        except RbeeError as error:
            _LOG.info("the hive at %s does not take the order to stop: %s", entry.node, error)
        with anyio.move_on_after(self.clocks.hive_drain_s * 1.5):
            await self._until_gone(entry)
            return
        if entry.child is not None:
            self.narrator.tell("kill_hive", f"the hive at {entry.node} does not stop: ending it", level="warning")
            await entry.child.terminate(self.clocks.parent_lost_drain_s * 2)
        else:
            text = f"the adopted hive at {entry.node} does not stop; it will stop itself when its lease runs out"
            self.narrator.tell("hive_left", text, level="warning")

    async def _until_gone(self, entry: HiveEntry) -> None:
        if entry.child is not None:
            await entry.child.wait_exit()
            return
        while True:
            try:
                await call(self.client, "GET", f"{entry.url}/health", unreachable=NodeUnreachableError)
            except RbeeError:
                return
            await anyio.sleep(0.1)
