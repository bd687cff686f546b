"""What hives say without being asked: heartbeats, workers that are ready; and what their silence means."""

import ipaddress
import logging
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from queen_rbee.domain.nodes.node import LOCAL_NODE
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry, HiveRegistry
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.reach import Callback, DirectReach
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import HiveHeartbeat, NodeState
from rbee_shared.contracts.workers import WorkerReady, WorkerState
from rbee_shared.errors import AlreadyExistsError, InvalidRequestError, NodeUnreachableError, RbeeError
from rbee_shared.narration import Narrator

_LOG = logging.getLogger("rbee.queen.hives")
_WATERMARK_S = 1.0
_BEATS_OF_A_LIVING_HIVE = 2


@dataclass
class HiveReports:
    """Takes what hives report. `group`: where hives that announce themselves are asked what they have."""

    clocks: Clocks
    catalog: NodeCatalog
    hives: HiveRegistry
    workers: WorkerRegistry
    contacts: HiveContacts
    callback: Callback
    narrator: Narrator
    group: TaskGroup

    async def heartbeat(self, beat: HiveHeartbeat, *, node: str | None = None, peer: str | None = None) -> int | None:
        """Take what a hive reports, after the lines that it said before; a hive that announces itself is adopted.

        Args:
            beat: what it says.
            node: whose hive it is, where its own token has said that.
            peer: the address that it calls from, where it is known.
        Returns:
            The number of this acquaintance; None if the hive is unknown here and does not say where it is.

        Raises:
            AlreadyExistsError: two living hives give the same name; the first one keeps it.
            InvalidRequestError: it announces an address of its own machine, from another one.
        """
        name = node or self._node_of(beat, peer)
        known = self._make_way(name, beat)
        if known is not None:
            await known.wait_heard(beat.narrated, _WATERMARK_S)
            if known.state is NodeState.OFFLINE:  # orders of the time before its silence are no longer meant
                known.epoch = await self.catalog.begin_epoch()
            if self.hives.get(name) is not known:
                return None  # it has ended meanwhile
            self._take(known, beat)
            return known.epoch
        if beat.url is None or node is not None or self.hives.has_ended(beat.hive_id):
            return None
        _require_reachable(beat.url, peer)
        entry = await self._new(name, beat.url, beat)
        return entry.epoch

    async def _new(self, name: str, url: str, beat: HiveHeartbeat) -> HiveEntry:
        epoch = await self.catalog.begin_epoch()
        await self.catalog.add(name, transport="local" if name == LOCAL_NODE else "http")
        if (entry := self._make_way(name, beat)) is None:
            reach = DirectReach(self.callback, urlsplit(url).hostname)
            entry = self.hives.put(HiveEntry(name, url, reach, epoch, hive_id=beat.hive_id))
            self.contacts.follow(entry, beat.narrated)
            self.group.start_soon(self._welcome, entry)
        self._take(entry, beat)
        return entry

    def _take(self, entry: HiveEntry, beat: HiveHeartbeat) -> None:
        overtaken = 0 < beat.seq <= entry.seq
        if entry.state is NodeState.OFFLINE:
            self.contacts.note_trouble(entry.node, None)
        self.hives.heartbeat(entry, beat)
        if not overtaken:
            self.workers.update(entry.node, beat.workers)
        if entry.process is None and entry.feed is None:
            self.contacts.follow(entry, beat.narrated)
        if entry.devices is not None and entry.models != entry.models_learnt:
            entry.models_learnt = entry.models
            self.group.start_soon(self._learn_models, entry)

    async def _learn_models(self, entry: HiveEntry) -> None:
        try:
            await self.contacts.learn_models(entry)
        except RbeeError as error:  # the next change brings the next try
            _LOG.info("the hive at %s does not say what models it has: %s", entry.node, error)

    def _make_way(self, node: str, beat: HiveHeartbeat) -> HiveEntry | None:
        """The entry that this heartbeat is for. One process replaces another only when that one is silent."""
        known = self.hives.get(node)
        if known is None or known.hive_id in {None, beat.hive_id}:
            return known
        if known.process is not None or self.hives.age_s(known) < self.clocks.heartbeat_s * _BEATS_OF_A_LIVING_HIVE:
            raise AlreadyExistsError(
                f"the hive at {known.url} is {node} already", hint="Start one of the two with another --name."
            )
        self.contacts.lose(known, "another hive has taken its place")
        return None

    async def _welcome(self, entry: HiveEntry) -> None:
        """Ask a hive that has announced itself what it has; if it does not say, the first task asks again."""
        async with self.contacts.lock(entry.node):
            if entry.devices is None and self.hives.get(entry.node) is entry:
                try:
                    await self.contacts.introduce(entry, self.narrator)
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

    def _node_of(self, beat: HiveHeartbeat, peer: str | None) -> str:
        """Another machine may have this one's name."""
        if beat.name == socket.gethostname() and (peer is None or _is_loopback(peer)):
            return LOCAL_NODE
        return self.hives.node_of(beat.hive_id) or beat.name or beat.hive_id

    async def watch(self) -> None:
        """Judge every hive by its heartbeats, for ever."""
        while True:
            await anyio.sleep(self.clocks.heartbeat_s / 2)
            for entry, state in self.hives.judged(suspect_s=self.clocks.suspect_s, lost_s=self.clocks.lost_s):
                self._judge(entry, state)

    def _judge(self, entry: HiveEntry, state: NodeState) -> None:
        if state is NodeState.OFFLINE and entry.reach.is_coming_back:
            state = NodeState.SUSPECT  # how long that is worth waiting for its link decides
        if entry.state in {state, NodeState.DRAINING, NodeState.OFFLINE}:
            return  # from the last of them only its own word leads back
        if entry.state is NodeState.STARTING and state is not NodeState.OFFLINE:
            return  # it becomes online by saying what it has
        entry.state = state
        if state is NodeState.OFFLINE:
            silence = NodeUnreachableError(f"the hive at {entry.node} has gone silent")
            self.narrator.tell("hive_offline", silence.message, cute="🔇", level="warning")
            self.contacts.note_trouble(entry.node, silence)
            entry.stop_hearing()
            self.workers.forget_node(entry.node, "it has gone silent")


def _require_reachable(url: str, peer: str | None) -> None:
    """A hive on another machine that gives a loopback address would be looked for on this one."""
    if peer is None or _is_loopback(peer) or not _is_loopback(urlsplit(url).hostname or ""):
        return
    raise InvalidRequestError(
        f"a hive at {peer} announces itself as {url}, where only its own machine finds it",
        hint=f"Start it with --bind {peer}, or add the machine as a node: rbee-keeper node add NAME --host {peer}",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
