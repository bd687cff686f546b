"""What a person has the queen do about a node: add it, trust it, look at it, start, stop and change what is on it.

Each tells what it does through its errand, and returns what became of it.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from queen_rbee.domain.nodes.node import DEFAULT_HIVE_PORT, LOCAL_NODE, Node
from queen_rbee.domain.nodes.preflight import Install, Ready, Refuse
from queen_rbee.errands import Errand
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_update import NodeUpdate
from queen_rbee.node_views import NodeViews
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.installer import uninstall
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit, say_findings
from queen_rbee.nodes.remote_start import Place, end_remotely
from queen_rbee.nodes.wheelhouse import make_wheelhouse
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.contracts.nodes import NodeAction, NodeOrder, NodeOutcome, TrustOrder
from rbee_shared.errors import (
    InvalidRequestError,
    RbeeError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
)
from rbee_shared.units import format_bytes

_LOCAL_HINT = "This machine needs none of it: its own rbee is the one that runs."


@dataclass(frozen=True)
class NodeActions:
    """`dialler`: for connections of one action; `links`: those that may be open already."""

    catalog: NodeCatalog
    directory: NodeDirectory
    dialler: Dialler
    links: Links
    preparation: Preparation
    updating: NodeUpdate
    arrival: HiveArrival
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
        if node.transport == "http" and await self._answers(node):
            errand.narrator.tell("node_answers", f"a hive answers on {node.name}", cute="👋")
        else:
            if order.fingerprint is not None:
                await self._confirm(node, order.fingerprint)
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
        await self._confirm(node, order.fingerprint, instead=True)
        errand.narrator.tell("node_trusted", f"{node.name} is trusted with {order.fingerprint}", cute="🔑")
        return await self._outcome(node.name)

    async def remove(self, name: str, errand: Errand) -> NodeOutcome:
        """Stop its hive, and forget the node and its host key. What is installed there stays: `uninstall` first."""
        node = await self.directory.get(name)
        view = await self._outcome(node.name)
        try:
            await self._stopped(node, errand)
        except RbeeError as error:
            _say(errand, node, f"its hive cannot be stopped ({error.message}); without a queen it goes by its lease")
        await self.catalog.remove(node.name)
        await anyio.to_thread.run_sync(self.dialler.host_keys.forget, node.address, node.port)
        return view

    async def test(self, name: str, errand: Errand) -> NodeOutcome:
        """Everything that a start would check, changing nothing.

        Raises:
            RbeeError: the first thing that would keep a hive from starting there.
        """
        node = await self._remote(name)
        errand.now(f"connecting to {node.name}")
        async with self._noted(node), self._visit(node, errand) as visit:
            errand.narrator.tell("node_login", f"{node.name}: reached and logged in over SSH", cute="🔑")
            _, assessment = await self.preparation.look(visit, may_install=True)
            say_findings(visit, assessment)
            if node.transport == "ssh":
                async with self.links.use(Target.of(node)) as link:
                    await link.open_back()
                    await (await link.connection()).require_forwarding(node.port or 22)
                errand.narrator.tell("node_forwards", f"{node.name}: ports can be forwarded", cute="✔️")
        if isinstance(assessment.verdict, Refuse):
            raise assessment.verdict.error
        findings = [{"about": f.about, "said": f.said, "ok": f.is_good} for f in assessment.findings]
        return await self._outcome(node.name, findings=findings, ready=isinstance(assessment.verdict, Ready))

    async def start(self, name: str, action: NodeAction, errand: Errand) -> NodeOutcome:
        """Have its hive up."""
        node = await self.directory.get(name)
        if not action.install and node.installs:
            await self._require_installed(node, errand)
        await self.lifecycle.ensure(node.name, errand.narrator, errand.now)
        return await self._outcome(node.name)

    async def stop(self, name: str, errand: Errand) -> NodeOutcome:
        """Stop its hive and all its workers."""
        node = await self.directory.get(name)
        return await self._outcome(node.name, stopped=await self._stopped(node, errand))

    async def drain(self, name: str, errand: Errand, *, drained: bool) -> NodeOutcome:
        """Give it no new work, or give it work again."""
        node = await self.directory.get(name)
        await self.lifecycle.drain(node.name, drained=drained)
        text = f"{node.name} gets no new work" if drained else f"{node.name} gets work again"
        errand.narrator.tell("drain" if drained else "resume", text, cute="🚧" if drained else "🟢")
        return await self._outcome(node.name)

    async def install(self, name: str, errand: Errand) -> NodeOutcome:
        """Put this queen's rbee there, if it is not there yet."""
        node = await self._remote(name)
        async with self._noted(node), self._visit(node, errand) as visit:
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
        """Bring it to this queen's own version."""
        node = await self._remote(name)
        async with self._noted(node), self.links.use(Target.of(node)) as link:
            visit = Visit(node, await link.connection(), errand.narrator, errand.now)
            facts = await self.updating.update(visit, link, action)
        return await self._outcome(node.name, **facts)

    async def uninstall(self, name: str, action: NodeAction, errand: Errand) -> NodeOutcome:
        """Leave the account as it was before rbee came."""
        node = await self._remote(name)
        await self._stopped(node, errand)
        async with self._noted(node), self._visit(node, errand) as visit:
            found, _ = await self.preparation.look(visit, may_install=True)
            python = await self.preparation.python_of(found)
            errand.now(f"removing rbee from {node.name}")
            site = Site(visit.shell, node.name, found.home, python.path)
            token = self.preparation.token
            removed = await uninstall(
                site, lambda text: _say(errand, node, text), token=token, keep_models=action.keep_models
            )
        _say(errand, node, f"rbee is removed, {format_bytes(removed.freed_bytes)} are free again")
        await self.catalog.note_version(node.name, None)
        return await self._outcome(node.name, freed_bytes=removed.freed_bytes, left=", ".join(removed.left))

    async def wheelhouse(self, name: str, errand: Errand) -> NodeOutcome:
        """Pack all libraries that this node needs, for one that reaches no package index."""
        node = await self._remote(name)
        async with self._noted(node), self._visit(node, errand) as visit:
            found, _ = await self.preparation.look(visit, may_install=True)
            python = await self.preparation.python_of(found)
        errand.now(f"packing the libraries for {node.name}")
        own, tag = await self.preparation.own(), python.tag
        assert tag is not None
        made = await make_wheelhouse(self.preparation.home, own, tag, lambda text: _say(errand, node, text))
        _say(errand, node, f"{len(made.files)} wheels, {format_bytes(made.size_bytes)}, are in {made.path}")
        return await self._outcome(node.name, path=str(made.path), files=len(made.files), size_bytes=made.size_bytes)

    async def _confirm(self, node: Node, fingerprint: str, *, instead: bool = False) -> None:
        """Trust the key of that fingerprint, if it is the one that the node shows. `instead`: of another one."""
        target = Target.of(node)
        shown = await self.dialler.presented_key(target)
        key = {"key_type": shown.key.key_type, "fingerprint": shown.key.fingerprint}
        facts = {"host": shown.host, "port": shown.port, **key}
        if shown.key.fingerprint != fingerprint:
            text = f"{node.name} shows the host key {shown.key.fingerprint}, and not {fingerprint}"
            raise SshHostKeyUnknownError(text, details=facts)
        if shown.known and fingerprint not in shown.known and not instead:
            known = ", ".join(shown.known)
            raise SshHostKeyChangedError(
                f"{node.name} is trusted with another host key already: {known}",
                hint=f"If the new one is right, accept it: rbee-keeper node trust {node.name}",
                details={**facts, "known_fingerprint": known},
            )
        if fingerprint not in shown.known:
            await anyio.to_thread.run_sync(self.dialler.host_keys.accept, shown.host, shown.port, shown.key)

    async def _answers(self, node: Node) -> bool:
        return await self.arrival.looked_at(f"http://{node.address}:{node.hive_port or DEFAULT_HIVE_PORT}") is not None

    async def _remote(self, name: str) -> Node:
        node = await self.directory.get(name)
        if node.is_local:
            raise InvalidRequestError(f"{node.name} is this machine", hint=_LOCAL_HINT)
        return node

    async def _require_installed(self, node: Node, errand: Errand) -> None:
        if not node.is_local:
            async with self._noted(node), self._visit(node, errand) as visit:
                await self.preparation.prepare(visit, may_install=False)

    async def _stopped(self, node: Node, errand: Errand) -> bool:
        """Whether no hive of that home runs there any more."""
        if (entry := self.lifecycle.hives.get(node.name)) is not None:
            errand.now(f"waiting for the hive at {node.name} to stop")
            return await self.lifecycle.stop(entry)
        if node.is_local or not node.serving:
            _say(errand, node, "no hive of this queen runs there")
            return True
        async with self._visit(node, errand) as visit:
            found, _ = await self.preparation.look(visit, may_install=False)
            if found.hive is None or not found.hive.alive or found.installed is None:
                _say(errand, node, "no hive runs there")
                return True
            return await end_remotely(visit.shell, Place.of(node, found), self.lifecycle.clocks.hive_drain_s)

    @asynccontextmanager
    async def _visit(self, node: Node, errand: Errand) -> AsyncGenerator[Visit]:
        async with self.links.use(Target.of(node)) as link:
            yield Visit(node, await link.connection(), errand.narrator, errand.now)

    @asynccontextmanager
    async def _noted(self, node: Node) -> AsyncGenerator[None]:
        """What goes wrong is kept with the node, until something goes well."""
        try:
            yield
        except RbeeError as error:
            await self.catalog.note_failure(node.name, error)
            raise
        await self.catalog.note_success(node.name)

    async def _outcome(self, name: str, **facts: Any) -> NodeOutcome:
        return NodeOutcome(node=await self.views.one(name), facts=facts)


def _say(errand: Errand, node: Node, text: str) -> None:
    errand.narrator.tell("node", f"{node.name}: {text}", cute="🔧")
