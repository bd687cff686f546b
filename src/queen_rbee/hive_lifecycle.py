"""Wakes the hive that a task needs, and puts the woken ones back to sleep.

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
from queen_rbee.hive_process import HiveProcess
from queen_rbee.hive_registry import HiveEntry, HiveRegistry
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.waker import Doing, Waker
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import NodeState, Transport
from rbee_shared.errors import NoCapacityError, NodeUnreachableError, RbeeError
from rbee_shared.http_client import call
from rbee_shared.narration import Narrator

_LOG = logging.getLogger("rbee.queen.hives")
_GONE_POLL_S = 0.1


@dataclass
class HiveLifecycle:
    """Hives of this queen. `wakers`: for each kind of node the one that knows how."""

    clocks: Clocks
    directory: NodeDirectory
    hives: HiveRegistry
    contacts: HiveContacts
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
            await self._met_again(name, doing)
            entry = self.hives.get(name)
            if entry is not None and entry.state is NodeState.OFFLINE:
                await self._put_away(entry)
                entry = None
            if entry is None:
                entry = await self._woken(await self._known(name, tell), tell, doing)
            if entry.drained:
                raise NoCapacityError(f"{name} is drained", hint=f"Give it work again: rbee-keeper node resume {name}")
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
        if node.drained:
            raise NoCapacityError(
                f"{node.name} is drained", hint=f"Give it work again: rbee-keeper node resume {node.name}"
            )
        try:
            entry = await self.wakers[node.transport].wake(node, tell, doing, partial(self._gone, node.name))
        except RbeeError as error:
            await self.directory.catalog.note_failure(node.name, error)
            raise
        await self.directory.catalog.note_serving(node.name, serving=True)
        return entry

    async def candidates(self, wish: Wish, workers: tuple[WorkerFacts, ...]) -> tuple[Candidate, ...]:
        """The nodes for a wish that names none, best first; this machine if there is no better answer."""
        nodes = await self.directory.catalog.nodes()
        if not any(node.is_local for node in nodes):
            nodes = (*nodes, Node(LOCAL_NODE, "local"))
        found = candidates(wish, (self._facts(node) for node in nodes), workers)
        return found or (Candidate(LOCAL_NODE, "no other node has it"),)

    def _facts(self, node: Node) -> NodeFacts:
        entry = self.hives.get(node.name)
        is_up = entry is not None and entry.state is not NodeState.OFFLINE
        return NodeFacts(node, is_up, node.models | (entry.model_names if entry is not None else frozenset()))

    async def drain(self, name: str, *, drained: bool) -> None:
        """Whether that node gets no new work."""
        await self.directory.catalog.drain(name, drained=drained)
        if (entry := self.hives.get(name)) is not None:
            entry.drained = drained

    async def _put_away(self, entry: HiveEntry) -> None:
        """One that has gone silent holds its home's lock, and perhaps its workers' memory."""
        if entry.process is not None:
            await entry.process.terminate(self.clocks.parent_lost_drain_s)
        self.contacts.lose(entry, "it has gone silent")

    def _gone(self, node: str, process: HiveProcess, how: str, *, expected: bool) -> None:
        """A woken hive has ended; its successor may be on its way up already."""
        self.hives.note_end(process.listening.instance if process.listening else None)
        if (entry := self.hives.get(node)) is not None and entry.process is process:
            self.contacts.lose(entry, how)
        if not expected:
            self.narrator.tell("hive_lost", f"the hive at {node} is gone ({how})", cute="💀", level="error")

    async def stop_all(self, *, cascade: bool) -> None:
        """Stop every hive in parallel: woken ones always, adopted ones with `cascade`, standalone ones never."""
        async with anyio.create_task_group() as group:
            for entry in self.hives.all():
                if entry.process is not None or (cascade and not entry.standalone):
                    group.start_soon(self.stop, entry)

    async def stop(self, entry: HiveEntry) -> bool:
        """Stop one: by HTTP, then by its process. Whether it is known to be gone."""
        entry.state = NodeState.DRAINING
        if not (is_gone := await self._stopped_by_word(entry)):
            is_gone = await self._stopped_by_force(entry)
        if is_gone:
            await self.directory.catalog.note_serving(entry.node, serving=False)
            if entry.node != LOCAL_NODE:
                self.narrator.tell("hive_stopped", f"the hive at {entry.node} has stopped", cute="🌙")
            self.contacts.lose(entry, "it was stopped")
        else:
            bound_s = self.clocks.hive_lease_s + self.clocks.hive_drain_s
            self.narrator.tell(
                "hive_left",
                f"{entry.node} cannot be reached; its hive will stop itself by its lease in at most {bound_s:.0f} s",
                level="warning",
            )
        return is_gone

    async def _stopped_by_word(self, entry: HiveEntry) -> bool:
        try:
            await self.contacts.client_of(entry).shutdown()
        except RbeeError as error:
            _LOG.info("the hive at %s does not take the order to stop: %s", entry.node, error)
            if entry.process is None and entry.end is None:
                return isinstance(error, NodeUnreachableError) and not entry.reach.is_coming_back
            return False
        with anyio.move_on_after(self.clocks.hive_drain_s * 1.5):
            await self._until_gone(entry)
            return True
        return False

    async def _stopped_by_force(self, entry: HiveEntry) -> bool:
        """TERM, then KILL; over SSH where it is on another machine."""
        grace_s = self.clocks.parent_lost_drain_s * 2
        self.narrator.tell("kill_hive", f"the hive at {entry.node} does not stop: ending it", level="warning")
        if entry.process is not None:
            await entry.process.terminate(grace_s)
            return entry.process.returncode is not None
        return entry.end is not None and await entry.end(grace_s)

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
                    entry.drained = node.drained
                    await self.contacts.introduce(entry, self.narrator)
            except RbeeError as error:
                _LOG.warning("the hive at %s was not taken over: %s (%s)", node.name, error, error.code)

    async def _until_gone(self, entry: HiveEntry) -> None:
        if entry.process is not None:
            await entry.process.wait_exit()
            return
        while True:
            try:
                await call(self.contacts.client, "GET", f"{entry.url}/health", unreachable=NodeUnreachableError)
            except RbeeError:
                return
            await anyio.sleep(_GONE_POLL_S)
