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
from rbee_shared.child import Child
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import HiveHeartbeat, NodeState
from rbee_shared.contracts.workers import WorkerReady, WorkerState
from rbee_shared.errors import AlreadyExistsError, NodeUnreachableError, RbeeError
from rbee_shared.http_client import call
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home
from rbee_shared.run_file import read_run_file

_LOG = logging.getLogger("rbee.queen.hives")
LOCAL_NODE = "localhost"
_WATERMARK_S = 1.0
_BEATS_OF_A_LIVING_HIVE = 2


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
        return HiveClient(self.client, entry.url, self.identity.token, self.identity.epoch)

    async def heartbeat(self, beat: HiveHeartbeat) -> bool:
        """Take what a hive reports, after the lines that it said before; a hive that announces itself is adopted.

        False: it is unknown here and does not say where it is, so nothing was taken.
        """
        node = self._node_of(beat)
        known = self._make_way(node, beat)
        if known is not None:
            await known.wait_heard(beat.narrated, _WATERMARK_S)
            if self.hives.get(node) is not known:
                return False  # it has ended meanwhile
        elif beat.url is None or self.hives.has_ended(beat.hive_id):
            return False
        overtaken = known is not None and 0 < beat.seq <= known.seq
        entry = self.hives.heartbeat(node, beat)
        if not overtaken:
            self.workers.update(node, beat.workers)
        if entry.child is None and entry.feed is None:
            self._follow(entry, beat.narrated)
        if known is None:
            self.group.start_soon(self._welcome, entry)
        return True

    def _make_way(self, node: str, beat: HiveHeartbeat) -> HiveEntry | None:
        """The entry that this heartbeat is for. One process replaces another only when that one is silent.

        Raises:
            AlreadyExistsError: two living hives give the same name; the first one keeps it.
        """
        known = self.hives.get(node)
        if known is None or known.hive_id in {None, beat.hive_id}:
            return known
        if known.child is not None or self.hives.age_s(known) < self.clocks.heartbeat_s * _BEATS_OF_A_LIVING_HIVE:
            raise AlreadyExistsError(
                f"the hive at {known.url} is {node} already", hint="Start one of the two with another --name."
            )
        self._lose(known, "another hive has taken its place")
        return None

    async def _welcome(self, entry: HiveEntry) -> None:
        """Ask a hive that has announced itself what it has; if it does not say, the first task asks again."""
        async with self._lock(entry.node):
            if entry.devices is None and self.hives.get(entry.node) is entry:
                try:
                    await self.catalog.add(entry.node, transport="local")
                    await self._introduce(entry, self.narrator)
                except RbeeError as error:
                    _LOG.warning("the hive at %s does not introduce itself: %s (%s)", entry.node, error, error.code)

    async def worker_ready(self, ready: WorkerReady) -> bool:
        """Take a hive's word that a worker serves, after the lines it said before; False: the worker is unknown here.

        Then the next heartbeat brings its record and its key.
        """
        node = self.workers.node_of(ready.worker_id)
        if node is not None and (entry := self.hives.get(node)) is not None:
            await entry.wait_heard(ready.narrated, _WATERMARK_S)
        record = self.workers.get(ready.worker_id)
        if node is None or record is None or record.api_key is None or ready.restart_count != record.restart_count:
            return False
        if record.state in {WorkerState.STARTING, WorkerState.LOADING}:
            self.workers.put(node, record.model_copy(update={"url": ready.url, "state": WorkerState.IDLE}))
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
        async with self._lock(node):
            entry = self.hives.get(node)
            if entry is not None and entry.state is NodeState.OFFLINE and entry.child is not None:
                await entry.child.terminate(self.clocks.parent_lost_drain_s)  # silent, and it holds the home's lock
            if entry is None or entry.state is NodeState.OFFLINE:
                entry = await self._wake_or_adopt(node, tell)
            if entry.devices is None:
                await self._introduce(entry, tell)
            return entry

    def _lock(self, node: str) -> anyio.Lock:
        return self._locks.setdefault(node, anyio.Lock())

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
        entry = self.hives.expect(node, running.url, None, hive_id=running.instance)
        try:
            await self.client_of(entry).adopt(self.identity.url, self.identity.epoch)
            return await self._first_heartbeat(entry)
        except BaseException:  # a cancelled task too: what has not spoken yet must be asked anew by the next one
            self.hives.remove(entry)
            raise

    async def _wake(self, node: str, tell: Narrator) -> HiveEntry:
        tell.tell("wake_hive", f"waking the hive at {node} on {self.launcher.where}", cute="🐝")
        child = await self.launcher.launch(self.group, partial(self._hive_gone, node))
        entry = self.hives.expect(node, "", child)
        try:
            listening = await child.wait_listening(self.clocks.daemon_start_s)
            entry.url, entry.hive_id = listening.url, listening.instance
            await self._first_heartbeat(entry)
        except BaseException:
            self.hives.remove(entry)
            with anyio.CancelScope(shield=True):  # half started it is of no use to anybody
                await child.terminate(self.clocks.parent_lost_drain_s)
            raise
        await child.wait_heard(entry.narrated, _WATERMARK_S)
        return entry

    async def _first_heartbeat(self, entry: HiveEntry) -> HiveEntry:
        with anyio.move_on_after(self.clocks.daemon_start_s):
            async with anyio.create_task_group() as group:
                if entry.child is not None:
                    group.start_soon(_cancel_at_death, entry.child, group.cancel_scope)
                await entry.heard.wait()
                group.cancel_scope.cancel()
        if entry.heard.is_set():
            return entry
        if entry.child is not None and entry.child.returncode is not None:
            raise entry.child.death()
        raise NodeUnreachableError(f"the hive at {entry.node} started and sent no heartbeat")

    async def _introduce(self, entry: HiveEntry, tell: Narrator) -> None:
        tell.tell("first_heartbeat", f"first heartbeat from hive {entry.node}; asking what it has", cute="💓")
        try:
            devices = await self.client_of(entry).devices()
        except NodeUnreachableError:
            if entry.child is None:
                self._lose(entry, "it announced itself and does not answer")
            raise
        self.hives.learn_devices(entry, devices)
        await self.catalog.seen(entry.node, devices)
        tell.tell("hive_devices", f"hive {entry.node} has {describe(devices)}", cute="🖥️")

    def _hive_gone(self, node: str, child: Child, how: str, *, expected: bool) -> None:
        """A woken hive has ended; its successor may be on its way up already."""
        self.hives.note_end(child.listening.instance if child.listening else None)
        if (entry := self.hives.get(node)) is not None and entry.child is child:
            self._lose(entry, how)
        if not expected:
            self.narrator.tell("hive_lost", f"the hive at {node} is gone ({how})", cute="💀", level="error")

    def _lose(self, entry: HiveEntry, why: str) -> None:
        self.hives.remove(entry)
        self.workers.forget_node(entry.node, why)

    async def refresh_workers(self, node: str) -> None:
        """Ask the hive of `node` for its workers now, instead of waiting for its next heartbeat."""
        if (entry := self.hives.get(node)) is not None:
            listed = await self.client_of(entry).workers()
            if self.hives.get(node) is entry:
                self.workers.update(node, listed.workers)

    async def watch(self) -> None:
        """Judge every hive by its heartbeats, for ever."""
        while True:
            await anyio.sleep(self.clocks.heartbeat_s / 2)
            for entry, state in self.hives.judged(suspect_s=self.clocks.suspect_s, lost_s=self.clocks.lost_s):
                self._judge(entry, state)

    def _judge(self, entry: HiveEntry, state: NodeState) -> None:
        if entry.state in {state, NodeState.DRAINING}:
            return
        if entry.state is NodeState.STARTING and state is not NodeState.OFFLINE:
            return  # it becomes online by saying what it has
        entry.state = state
        if state is NodeState.OFFLINE:
            self.narrator.tell("hive_offline", f"the hive at {entry.node} has gone silent", cute="🔇", level="warning")
            entry.stop_hearing()
            self.workers.forget_node(entry.node, "it has gone silent")

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


async def _cancel_at_death(child: Child, scope: anyio.CancelScope) -> None:
    await child.wait_exit()
    scope.cancel()
