"""Stops the hive of one node because somebody said so: it is gone then, or it is said what will become of it."""

from dataclasses import dataclass

from queen_rbee.domain.nodes.node import Node
from queen_rbee.errands import Errand
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit
from queen_rbee.nodes.remote_start import Place, end_remotely
from queen_rbee.nodes.waker import Doing
from queen_rbee.ssh.target import Target
from rbee_shared.clocks import Clocks
from rbee_shared.errors import NodeUnreachableError, RequestTimeoutError, SshUnreachableError

_STOP_THERE = "Stop it on that machine: ~/.rbee/current/bin/rbee-hive stop --kill"
_START_OF_A_PROGRAM_S = 10.0


@dataclass(frozen=True)
class NodeStop:
    """Whoever calls it holds the node's lock."""

    lifecycle: HiveLifecycle
    links: Links
    preparation: Preparation

    async def stop(self, node: Node, errand: Errand) -> None:
        """Return when no hive of this queen runs there.

        Raises:
            NodeUnreachableError: one may; how long, its message says.
            RbeeError: nobody can look there, and why.
        """
        if (entry := self.lifecycle.hives.get(node.name)) is not None:
            await self.end(entry, errand.now)
        elif node.is_local or not node.serving:
            _say(errand, node, "no hive of this queen runs there")
        else:
            await self._end_unmet(node, errand)

    async def end(self, entry: HiveEntry, doing: Doing) -> None:
        """Stop a hive that she knows.

        Raises:
            NodeUnreachableError: it may still run; how long, its message says.
        """
        doing(f"waiting for the hive at {entry.node} to stop")
        if not await self.lifecycle.ending.stop(entry):
            raise NodeUnreachableError(self.lifecycle.ending.left_behind(entry), hint=_STOP_THERE)

    async def end_at(self, visit: Visit, place: Place) -> None:
        """Stop the hive that runs in that home, whoever has started it.

        Raises:
            NodeUnreachableError: it does not stop, or nobody knows.
        """
        visit.doing(f"waiting for the hive at {place.node.name} to stop")
        try:
            is_gone = await end_remotely(visit.shell, place, _patience_s(self.lifecycle.ending.clocks))
        except (SshUnreachableError, RequestTimeoutError) as error:
            raise NodeUnreachableError(f"the hive at {place.node.name}: {error.message}", hint=_STOP_THERE) from None
        if not is_gone:
            raise NodeUnreachableError(f"the hive at {place.node.name} does not stop", hint=_STOP_THERE)

    async def _end_unmet(self, node: Node, errand: Errand) -> None:
        """One of an earlier start of hers, that she has not taken over."""
        try:
            async with self.links.use(Target.of(node)) as link:
                visit = Visit(node, await link.connection(), errand.narrator, errand.now)
                found, _ = await self.preparation.look(visit, may_install=False)
                if found.hive is None or not found.hive.alive:
                    _say(errand, node, "no hive runs there")
                else:
                    await self.end_at(visit, Place.of(node, found))
        except (SshUnreachableError, NodeUnreachableError) as error:
            text = f"{error.message}; {self._what_becomes_of_it()}"
            raise NodeUnreachableError(text, hint=error.hint) from None
        await self.lifecycle.directory.catalog.note_serving(node.name, serving=False)

    def _what_becomes_of_it(self) -> str:
        """The longest lease that it may have: whether she had started or adopted it is not known any more."""
        clocks = self.lifecycle.ending.clocks
        bound_s = clocks.adopted_hive_lease_s + clocks.hive_drain_s
        return (
            f"if its hive still runs it will stop itself by its lease in at most {bound_s:.0f} s, "
            "unless an operator started it to stand alone"
        )


def _patience_s(clocks: Clocks) -> float:
    """`rbee-hive stop --kill` asks, sends TERM and then KILL, and waits for a drain each time."""
    return clocks.hive_drain_s * 3 + _START_OF_A_PROGRAM_S


def _say(errand: Errand, node: Node, text: str) -> None:
    errand.narrator.tell("node", f"{node.name}: {text}", cute="🔧")
