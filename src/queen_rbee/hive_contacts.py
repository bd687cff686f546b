"""What the queen does with a hive she knows: call it, hear it, ask what it has, forget it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import anyio
import httpx2
from anyio.abc import TaskGroup

from queen_rbee.hive_client import HiveClient
from queen_rbee.hive_feed import HiveFeed
from queen_rbee.hive_registry import HiveEntry, HiveRegistry, describe
from queen_rbee.identity import Identity
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.errors import NodeUnreachableError
from rbee_shared.narration import Narration, Narrator

_LOG = logging.getLogger("rbee.queen.hives")


@dataclass
class HiveContacts:
    """`group`: where the hives' event streams are followed; `hear`: what becomes of the lines of a node's hive."""

    identity: Identity
    catalog: NodeCatalog
    hives: HiveRegistry
    workers: WorkerRegistry
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    hear: Callable[[str, Narration], None]
    group: TaskGroup
    _locks: dict[str, anyio.Lock] = field(default_factory=dict)

    def lock(self, node: str) -> anyio.Lock:
        """Held by whoever wakes, greets or changes the hive of that node."""
        return self._locks.setdefault(node, anyio.Lock())

    def client_of(self, entry: HiveEntry) -> HiveClient:
        return HiveClient(self.client, entry.url, self.identity.token, entry.epoch)

    async def address(self, node: str, url: str) -> str:
        """Where a worker of that node that calls itself `url` answers from here; a lost connection is waited for.

        Raises:
            NodeUnreachableError: the node is lost.
        """
        if (entry := self.hives.get(node)) is None:
            raise NodeUnreachableError(f"the hive at {node} is gone")
        return await entry.reach.url(url)

    def follow(self, entry: HiveEntry, after: int) -> None:
        """Hear the hive's lines after number `after` by its event stream, for as long as it is known."""
        entry.stop_hearing()
        entry.feed = HiveFeed(self.session, entry.url, self.identity.token, after)
        self.group.start_soon(entry.feed.run, lambda line: self.hear(entry.node, line))

    async def introduce(self, entry: HiveEntry, tell: Narrator) -> None:
        """Ask a hive what it has: from then on it can be given work.

        Raises:
            NodeUnreachableError: it does not answer; one that had only announced itself is forgotten.
            RbeeError: what else is wrong with it.
        """
        tell.tell("first_heartbeat", f"first heartbeat from hive {entry.node}; asking what it has", cute="💓")
        try:
            devices = await self.client_of(entry).devices()
        except NodeUnreachableError:
            if entry.process is None:
                self.lose(entry, "it announced itself and does not answer")
            raise
        self.hives.learn_devices(entry, devices)
        await self.catalog.seen(entry.node, devices, version=entry.version)
        await self.learn_models(entry)
        tell.tell("hive_devices", f"hive {entry.node} has {describe(devices)}", cute="🖥️")

    async def learn_models(self, entry: HiveEntry) -> None:
        """Keep the names of its models, so that it can be woken for one of them."""
        entry.models_learnt = entry.models
        entry.model_names = await self.client_of(entry).model_names()
        await self.catalog.learn_models(entry.node, entry.model_names)

    async def refresh_workers(self, node: str) -> None:
        """Ask the hive of `node` for its workers now, instead of waiting for its next heartbeat."""
        if (entry := self.hives.get(node)) is not None:
            listed = await self.client_of(entry).workers()
            if self.hives.get(node) is entry:
                self.workers.update(node, listed.workers)

    def lose(self, entry: HiveEntry, why: str) -> None:
        """Forget it and its workers; `why` completes "went with its hive: …"."""
        self.hives.remove(entry)
        if self.hives.get(entry.node) is None:
            self.workers.forget_node(entry.node, why)
