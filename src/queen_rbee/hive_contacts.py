"""What the queen does with a hive she knows: call it, hear it, ask what it has, forget it."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

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
from rbee_shared.errors import NodeUnreachableError, RbeeError
from rbee_shared.narration import Narration, Narrator

_LOG = logging.getLogger("rbee.queen.hives")


@dataclass
class HiveContacts:
    """`group`: where the hives' event streams are followed; `hear`: what becomes of the lines of a node's hive.

    `revoke`: ends what the token opens that a node's hive was given.
    """

    identity: Identity
    catalog: NodeCatalog
    hives: HiveRegistry
    workers: WorkerRegistry
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    hear: Callable[[str, Narration], None]
    revoke: Callable[[str], None]
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
        after = max(after, entry.feed.heard if entry.feed is not None else 0)
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

    def note_trouble(self, node: str, error: RbeeError | None) -> None:
        """Have the catalog know what is wrong with a node's hive, or that nothing is any more."""
        if error is None:
            self.group.start_soon(self.note, partial(self.catalog.note_success, node))
        else:
            self.group.start_soon(self.note, partial(self.catalog.note_failure, node, error))

    async def note(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write something into the catalog that nobody's work depends on: a full disk is logged, and ends nothing."""
        try:
            await write()
        except RbeeError as error:
            _LOG.warning("the catalog does not take what is known of a hive: %s (%s)", error, error.code)

    def lose(self, entry: HiveEntry, why: str) -> None:
        """Forget it and its workers, and when it was last heard; `why` completes "went with its hive: …"."""
        if entry.heard.is_set():
            heard_unix = int(time.time() - self.hives.age_s(entry))
            self.group.start_soon(self.note, partial(self.catalog.note_heard, entry.node, heard_unix))
        self.hives.remove(entry)
        if self.hives.get(entry.node) is None:
            self.revoke(entry.node)
            self.workers.forget_node(entry.node, why)
