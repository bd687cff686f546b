"""Wakes the hive that a task needs, and takes over again what ran before.

One at a time per node: whoever comes second waits for the first and finds the hive up.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio

from queen_rbee.domain.facts import Wish, WorkerFacts
from queen_rbee.domain.nodes.node import LOCAL_NODE, Node
from queen_rbee.domain.nodes.node_choice import Candidate, NodeFacts, candidates
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_ending import HiveEnding
from queen_rbee.hive_process import HiveProcess
from queen_rbee.hive_registry import HiveEntry, HiveRegistry
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.waker import Doing, Waker
from rbee_shared.contracts.nodes import NodeState, Transport
from rbee_shared.errors import NoCapacityError, NodeUnreachableError, RbeeError
from rbee_shared.narration import Narrator

_LOG = logging.getLogger("rbee.queen.hives")


@dataclass
class HiveLifecycle:
    """Hives of this queen. `wakers`: for each kind of node the one that knows how."""

    directory: NodeDirectory
    hives: HiveRegistry
    contacts: HiveContacts
    ending: HiveEnding
    wakers: Mapping[Transport, Waker]
    narrator: Narrator

    async def ensure(self, name: str, tell: Narrator, doing: Doing) -> HiveEntry:
        """The hive of that node, up and known; woken if it sleeps. `doing` is told what this is waiting for.

        Raises:
            NodeNotFoundError: there is no such node.
            NoCapacityError: the node is drained.
            RbeeError: whatever kept it from starting.
        """
        doing(f"waiting for the hive at {name} to wake")
        async with self.contacts.lock(name):
            if self.hives.is_drained(name):
                raise NoCapacityError(f"{name} is drained", hint=f"Give it work again: rbee-keeper node resume {name}")
            return await self.awake(name, tell, doing)

    async def awake(self, name: str, tell: Narrator, doing: Doing) -> HiveEntry:
        """The same for a caller who holds the node's lock; whether the node is drained is his affair."""
        await self._met_again(name, doing)
        entry = self.hives.get(name)
        if entry is not None and entry.state is NodeState.OFFLINE:
            await self.ending.put_away(entry)
            entry = None
        if entry is None:
            entry = await self._woken(await self._known(name, tell), tell, doing)
        if entry.devices is None:
            await self.contacts.introduce(entry, tell)
        return entry

    async def _met_again(self, name: str, doing: Doing) -> None:
        """Wait for a connection that is being made anew: what is known of the hive then is true again."""
        entry = self.hives.get(name)
        if entry is not None and entry.reach.is_coming_back:
            doing(f"waiting for the connection to {name} to come back")
            with suppress(NodeUnreachableError):
                await entry.reach.url(entry.own_url)

    async def _known(self, name: str, tell: Narrator) -> Node:
        if name == LOCAL_NODE and not await self.directory.catalog.nodes():
            tell.tell("add_local_node", "no hives found; adding the local machine", cute="🏠")
        return await self.directory.get(name)

    async def _woken(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry:
        try:
            entry = await self.wakers[node.transport].wake(node, tell, doing, partial(self._gone, node.name))
        except RbeeError as error:
            await self.directory.catalog.note_failure(node.name, error)
            raise
        await self.directory.catalog.note_serving(node.name, serving=True)
        return entry

    async def candidates(self, wish: Wish, workers: tuple[WorkerFacts, ...]) -> tuple[Candidate, ...]:
        """The nodes for a wish that names none, best first; this machine if there is no better answer."""
        nodes = await self.directory.nodes()
        ready = (self._facts(node) for node in nodes if not self.hives.is_closed(node.name))
        found = candidates(wish, ready, workers)
        return found or (Candidate(LOCAL_NODE, "no other node has it"),)

    def _facts(self, node: Node) -> NodeFacts:
        entry = self.hives.get(node.name)
        is_up = entry is not None and entry.state is not NodeState.OFFLINE
        return NodeFacts(node, is_up, node.models | (entry.model_names if entry is not None else frozenset()))

    async def drain(self, name: str, *, drained: bool) -> None:
        """Whether that node gets no new work."""
        await self.directory.catalog.drain(name, drained=drained)
        self.hives.drain(name, drained=drained)

    def _gone(self, node: str, process: HiveProcess, how: str, *, expected: bool) -> None:
        """A woken hive has ended; its successor may be on its way up already."""
        self.hives.note_end(process.listening.instance if process.listening else None)
        entry = self.hives.get(node)
        if entry is None or entry.process is not process:
            return  # it was given up before, and that was told
        self.contacts.lose(entry, how)
        if not expected and not entry.to_stop:
            loss = NodeUnreachableError(f"the hive at {node} is gone ({how})")
            self.narrator.tell("hive_lost", loss.message, cute="💀", level="error")
            self.contacts.note_trouble(node, loss)

    async def look_for_hives(self) -> None:
        """Take over again the hives that ran when she last knew, before their leases run out."""
        async with anyio.create_task_group() as group:
            for node in await self.directory.catalog.nodes():
                if node.serving and not node.is_local:
                    group.start_soon(self._look_for, node)

    async def _look_for(self, node: Node) -> None:
        async with self.contacts.lock(node.name):
            if self.hives.get(node.name) is not None:
                return
            try:
                entry = await self.wakers[node.transport].find(node, self.narrator, lambda _: None)
                await self.directory.catalog.note_serving(node.name, serving=entry is not None)
                if entry is not None:
                    await self.contacts.introduce(entry, self.narrator)
            except RbeeError as error:
                _LOG.warning("the hive at %s was not taken over: %s (%s)", node.name, error, error.code)
            except Exception:  # noqa: BLE001 - one node keeps no queen from starting
                _LOG.exception("the hive at %s was not taken over", node.name)
