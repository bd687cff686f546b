"""What a person has the queen do about a node: add it, trust it, look at it, start, stop and change what is on it.

Each tells what it does through its errand, and returns what became of it. What changes the hive of a node, or what it
runs from, is done by one at a time.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from queen_rbee.domain.nodes.node import LOCAL_NODE, Node
from queen_rbee.domain.nodes.preflight import Install, Refuse
from queen_rbee.errands import Errand
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_keys import NodeKeys
from queen_rbee.node_stop import NodeStop
from queen_rbee.node_trial import NodeTrial
from queen_rbee.node_update import NodeUpdate
from queen_rbee.node_views import NodeViews
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.installer import uninstall
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit, say_findings
from queen_rbee.nodes.wheelhouse import make_wheelhouse
from queen_rbee.ssh.target import Target
from rbee_shared.contracts.nodes import NodeAction, NodeOrder, NodeOutcome, TrustOrder
from rbee_shared.errors import InvalidRequestError, NoCapacityError, RbeeError
from rbee_shared.units import format_bytes
from rbee_shared.version import __version__

_LOCAL_HINT = "This machine needs none of it: its own rbee is the one that runs."


@dataclass(frozen=True)
class NodeActions:
    """`links`: the connections, some of which may be open already."""

    catalog: NodeCatalog
    directory: NodeDirectory
    keys: NodeKeys
    links: Links
    preparation: Preparation
    trial: NodeTrial
    stopping: NodeStop
    updating: NodeUpdate
    lifecycle: HiveLifecycle
    views: NodeViews

    async def add(self, order: NodeOrder, errand: Errand) -> NodeOutcome:
        """Add a node, or change how it is reached. It must be there, and its host key confirmed.

        Raises:
            SshHostKeyUnknownError: nobody has confirmed its key: its details say which; order again with it.
            SshHostKeyChangedError, SshUnreachableError, SshAuthFailedError, ShellUnusableError: it is not added.
        """
        if order.name == LOCAL_NODE:
            raise InvalidRequestError(f"{LOCAL_NODE} is this machine, and a node already", hint=_LOCAL_HINT)
        node = Node(**order.model_dump(exclude={"fingerprint", "install"}), installs=order.install)
        errand.now(f"connecting to {node.name}")
        if await self.trial.answers_at(node, errand) is None:
            if order.fingerprint is not None:
                await self.keys.confirm(node, order.fingerprint)
            async with self._visit(node, errand) as visit:
                errand.narrator.tell("node_login", f"{node.name}: reached and logged in over SSH", cute="🔑")
                _, assessment = await self.preparation.look(visit, may_install=True)
                say_findings(visit, assessment)
        await self.catalog.put(node)
        return await self._outcome(node.name)

    async def trust(self, name: str, order: TrustOrder, errand: Errand) -> NodeOutcome:
        """Accept the host key that the node shows now, which is the one that was compared.

        Raises:
            SshHostKeyUnknownError, SshHostKeyChangedError: no fingerprint was given, or another one than it shows.
        """
        node = await self._remote(name)
        errand.now(f"asking {node.name} for its host key")
        if order.fingerprint is None:
            async with self._visit(node, errand):
                errand.narrator.tell(
                    "node_trusted", f"the host key of {node.name} is the one that is trusted", cute="🔑"
                )
            return await self._outcome(node.name)
        await self.keys.confirm(node, order.fingerprint, instead=True)
        errand.narrator.tell("node_trusted", f"{node.name} is trusted with {order.fingerprint}", cute="🔑")
        return await self._outcome(node.name)

    async def remove(self, name: str, errand: Errand) -> NodeOutcome:
        """Stop its hive, and forget the node and its host key. What is installed there stays: `uninstall` first.

        A machine that is dead, or cannot be reached, is forgotten too: the hive there ends by itself.
        """
        async with self._alone(name, errand) as node:
            is_stopped = True
            try:
                await self.stopping.stop(node, errand)
            except RbeeError as error:
                is_stopped = False
                text = f"{node.name} is forgotten although its hive was not stopped: {error.message}"
                errand.narrator.tell("node_left", text, cute="⚠️", level="warning")
            outcome = await self._outcome(node.name, stopped=is_stopped)
            await self.keys.forget(node)
            await self.catalog.remove(node.name)
            self.lifecycle.hives.drain(node.name, drained=False)
        return outcome

    async def test(self, name: str, errand: Errand) -> NodeOutcome:
        """Everything that a start would check, changing nothing.

        Raises:
            RbeeError: the first thing that would keep a hive from starting there.
        """
        node = await self._remote(name)
        async with self._noted(node):
            facts = await self.trial.carry_out(node, errand)
        return await self._outcome(node.name, **facts)

    async def start(self, name: str, action: NodeAction, errand: Errand) -> NodeOutcome:
        """Have its hive up; also where the node is drained, and gets no work."""
        async with self._alone(name, errand) as node:
            if not action.install and node.installs:
                await self._require_installed(node, errand)
            await self.lifecycle.awake(node.name, errand.narrator, errand.now)
        return await self._outcome(node.name)

    async def stop(self, name: str, errand: Errand) -> NodeOutcome:
        """Stop its hive and all its workers.

        Raises:
            NodeUnreachableError: it may still run; its message says what will become of it.
        """
        async with self._alone(name, errand) as node, self._noted(node):
            await self.stopping.stop(node, errand)
        return await self._outcome(node.name, stopped=True)

    async def drain(self, name: str, errand: Errand, *, drained: bool) -> NodeOutcome:
        """Give it no new work, or give it work again."""
        node = await self.directory.get(name)
        await self.lifecycle.drain(node.name, drained=drained)
        text = f"{node.name} gets no new work" if drained else f"{node.name} gets work again"
        errand.narrator.tell("drain" if drained else "resume", text, cute="🚧" if drained else "🟢")
        return await self._outcome(node.name)

    async def install(self, name: str, errand: Errand) -> NodeOutcome:
        """Put this queen's rbee there, if it is not there yet."""
        await self._remote(name)
        async with self._alone(name, errand) as node, self._noted(node), self._visit(node, errand) as visit:
            found, assessment = await self.preparation.look(visit, may_install=True)
            say_findings(visit, assessment)
            if isinstance(assessment.verdict, Refuse):
                raise assessment.verdict.error
            if isinstance(assessment.verdict, Install):
                installed = await self.preparation.install(visit, found, assessment)
            else:
                installed = assessment.verdict.installed
            await self.catalog.note_version(node.name, installed.version)
        return await self._outcome(node.name, **installed.model_dump(include={"version", "python", "id"}))

    async def update(self, name: str, action: NodeAction, errand: Errand) -> NodeOutcome:
        """Bring it to this queen's own version, and its worker builds with it."""
        if (node := await self.directory.get(name)).is_local:
            _say(errand, node, "this machine runs the queen's own version")
            return await self._outcome(node.name, needed=False, installed=__version__)
        async with (
            self._alone(name, errand) as node,
            self._noted(node),
            self.links.use(Target.of(node)) as link,
        ):
            visit = Visit(node, await link.connection(), errand.narrator, errand.now)
            facts = await self.updating.update(visit, link, action, errand)
        return await self._outcome(node.name, **facts)

    async def uninstall(self, name: str, action: NodeAction, errand: Errand) -> NodeOutcome:
        """Leave the account as it was before rbee came.

        Raises:
            NodeUnreachableError: its hive may still run, so nothing is removed.
        """
        await self._remote(name)
        async with self._alone(name, errand) as node, self._noted(node):
            await self.stopping.stop(node, errand)
            async with self._visit(node, errand) as visit:
                found, _ = await self.preparation.look(visit, may_install=True)
                python = await self.preparation.python_of(node.name, found)
                errand.now(f"removing rbee from {node.name}")
                site = Site(visit.shell, node.name, found.home, python.path)
                token = self.preparation.token
                removed = await uninstall(
                    site, lambda text: _say(errand, node, text), token=token, keep_models=action.keep_models
                )
            await self.catalog.note_version(node.name, None)
        _say(errand, node, f"rbee is removed, {format_bytes(removed.freed_bytes)} are free again")
        return await self._outcome(node.name, freed_bytes=removed.freed_bytes, left=", ".join(removed.left))

    async def wheelhouse(self, name: str, errand: Errand) -> NodeOutcome:
        """Pack all libraries that this node needs, for one that reaches no package index."""
        node = await self._remote(name)
        async with self._noted(node), self._visit(node, errand) as visit:
            found, _ = await self.preparation.look(visit, may_install=True)
            python = await self.preparation.python_of(node.name, found)
        errand.now(f"packing the libraries for {node.name}")
        own, tag = await self.preparation.own(), python.tag
        assert tag is not None
        made = await make_wheelhouse(self.preparation.home, own, tag, lambda text: _say(errand, node, text))
        return await self._outcome(node.name, path=str(made.path), files=len(made.files), size_bytes=made.size_bytes)

    @asynccontextmanager
    async def _alone(self, name: str, errand: Errand) -> AsyncGenerator[Node]:
        """The node of that name, whose hive nobody else wakes, greets or changes for the length of the block."""
        node = await self.directory.get(name)
        errand.now(f"waiting for what else is being done about {node.name}")
        async with self.lifecycle.contacts.lock(node.name):
            yield await self.directory.look_up(node.name)  # it may have been changed, or removed, meanwhile

    async def _remote(self, name: str) -> Node:
        node = await self.directory.get(name)
        if node.is_local:
            raise InvalidRequestError(f"{node.name} is this machine", hint=_LOCAL_HINT)
        return node

    async def _require_installed(self, node: Node, errand: Errand) -> None:
        if not node.is_local:
            async with self._noted(node), self._visit(node, errand) as visit:
                await self.preparation.prepare(visit, may_install=False)

    @asynccontextmanager
    async def _visit(self, node: Node, errand: Errand) -> AsyncGenerator[Visit]:
        async with self.links.use(Target.of(node)) as link:
            yield Visit(node, await link.connection(), errand.narrator, errand.now)

    @asynccontextmanager
    async def _noted(self, node: Node) -> AsyncGenerator[None]:
        """What goes wrong is kept with the node, until something goes well. That it is busy is nothing wrong."""
        try:
            yield
        except NoCapacityError:
            raise
        except RbeeError as error:
            await self.catalog.note_failure(node.name, error)
            raise
        await self.catalog.note_success(node.name)

    async def _outcome(self, name: str, **facts: Any) -> NodeOutcome:
        return NodeOutcome(node=await self.views.one(name), facts=facts)


def _say(errand: Errand, node: Node, text: str) -> None:
    errand.narrator.tell("node", f"{node.name}: {text}", cute="🔧")
