"""Brings a node to this queen's own version: nothing that works is interrupted, and what was up is up again.

The new version is installed beside the one that runs, which goes on until that has succeeded. Broken off anywhere, the
same order again does what is left.
"""

from dataclasses import dataclass

import anyio

from queen_rbee.domain.nodes.preflight import Assessment, Install, Refuse
from queen_rbee.domain.nodes.probe_report import Installed, Probe
from queen_rbee.domain.nodes.update import Engine, at_work, outdated_kinds, runs_other_code
from queen_rbee.errands import Errand
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_stop import NodeStop
from queen_rbee.nodes.installer import Version
from queen_rbee.nodes.link import NodeLink
from queen_rbee.nodes.preparation import Preparation, Visit, say_findings
from queen_rbee.nodes.remote_start import Place
from queen_rbee.nodes.running_hive import RunningHive
from queen_rbee.provision_feed import ProvisionFeed
from rbee_shared.contracts.nodes import NodeAction
from rbee_shared.errors import BadPeerError, NoCapacityError, RequestTimeoutError
from rbee_shared.version import __version__

_DRAIN_POLL_S = 0.5


@dataclass(frozen=True)
class _Sight:
    """What was found. `hive`: the one that answers there."""

    found: Probe
    assessment: Assessment
    hive: RunningHive | None
    outdated: tuple[str, ...] = ()

    @property
    def is_hive_alive(self) -> bool:
        """Whether one runs, be it that it does not answer."""
        return self.found.hive is not None and self.found.hive.alive

    @property
    def replaces_rbee(self) -> bool:
        return isinstance(self.assessment.verdict, Install)

    @property
    def replaces_hive(self) -> bool:
        """Whether the one that runs is not what it should be, or hangs."""
        if not self.is_hive_alive:
            return False
        installed = self.found.installed
        if self.replaces_rbee or self.hive is None or installed is None:
            return True
        return runs_other_code(self.hive.status, installed, __version__)


@dataclass(frozen=True)
class NodeUpdate:
    """The steps of `node update`. Whoever calls it holds the node's lock."""

    catalog: NodeCatalog
    preparation: Preparation
    contacts: HiveContacts
    lifecycle: HiveLifecycle
    stopping: NodeStop
    matchmaker: Matchmaker
    feed: ProvisionFeed

    async def update(self, visit: Visit, link: NodeLink, action: NodeAction, errand: Errand) -> dict[str, object]:
        """Do it, or with `check` only say whether it is needed; what was found and done.

        A hive that slept is woken to ask for its worker builds, and sleeps again.

        Raises:
            NoCapacityError: there is work on that node, and it was not told to wait for it.
            RbeeError: it cannot be done, and why.
        """
        sight = await self._look(visit, link)
        before = sight.found.installed.version if sight.found.installed is not None else None
        is_needed = sight.replaces_rbee or sight.replaces_hive or bool(sight.outdated)
        facts: dict[str, object] = {"needed": is_needed, "installed": before}
        if action.check:
            return {**facts, "outdated_builds": list(sight.outdated)}
        name = visit.node.name
        was_up = sight.hive is not None or self.lifecycle.hives.get(name) is not None
        with self.lifecycle.hives.closed(name):
            if sight.replaces_hive:
                await self._until_at_rest(visit, sight.hive, wait=action.drain)
            installed = await self._installed(visit, sight)
            if sight.replaces_hive:
                await self._stop(visit, sight, installed)
            entry = await self.lifecycle.awake(name, visit.tell, visit.doing)
            made = await self._renew_builds(entry, installed, errand)
            if not was_up:
                await self.stopping.end(entry, visit.doing)
        return {**facts, "installed": installed.version, "restarted": was_up and sight.replaces_hive, "builds": made}

    async def _look(self, visit: Visit, link: NodeLink) -> _Sight:
        found, assessment = await self.preparation.look(visit, may_install=True)
        say_findings(visit, assessment)
        if isinstance(assessment.verdict, Refuse):
            raise assessment.verdict.error
        try:
            hive = await RunningHive.find(self.contacts, link, visit.node, found.hive)
        except RequestTimeoutError:  # it hangs
            hive = None
        outdated: tuple[str, ...] = ()
        if hive is not None and found.installed is not None:
            outdated = outdated_kinds(hive.status.builds, await self._engine_for(found.installed))
        return _Sight(found, assessment, hive, outdated)

    async def _engine_for(self, installed: Installed) -> Engine:
        return Engine(await self.preparation.engine_version(), installed.python)

    async def _until_at_rest(self, visit: Visit, hive: RunningHive | None, *, wait: bool) -> None:
        """One that does not answer has no workers that do."""
        name = visit.node.name
        while hive is not None:
            workers = (await hive.client.status()).workers
            if not (reasons := at_work(name, workers, self.matchmaker.cluster())):
                return
            said = ", ".join(reasons)
            if not wait:
                raise NoCapacityError(
                    f"{name} is at work: {said}", hint=f"Wait for it: rbee-keeper node update {name} --drain"
                )
            visit.doing(f"waiting for the work on {name} to end: {said}")
            await anyio.sleep(_DRAIN_POLL_S)

    async def _installed(self, visit: Visit, sight: _Sight) -> Installed:
        if isinstance(sight.assessment.verdict, Install):
            installed = await self.preparation.install(visit, sight.found, sight.assessment)
            await self.catalog.note_version(visit.node.name, installed.version)
            return installed
        assert sight.found.installed is not None  # the verdict was `Ready`
        return sight.found.installed

    async def _stop(self, visit: Visit, sight: _Sight, installed: Installed) -> None:
        """By what was just installed: the hive may be of a version that does not start any more."""
        name = visit.node.name
        if sight.hive is not None and sight.hive.status.standalone:
            text = f"an operator has started the hive on {name} to stand alone: start it there again as it was"
            visit.tell.tell("operators_hive", text, cute="✋", level="warning")
        if (entry := self.lifecycle.hives.get(name)) is not None:
            await self.stopping.end(entry, visit.doing)
        else:
            program = Version.of(sight.found.home, installed).argv("rbee-hive")
            await self.stopping.end_at(visit, Place(visit.node, sight.found.home, program))

    async def _renew_builds(self, entry: HiveEntry, installed: Installed, errand: Errand) -> list[str]:
        """Have worker builds that this version can use, of every kind that was made there. The ids of the new ones."""
        hive, node, engine = self.contacts.client_of(entry), entry.node, await self._engine_for(installed)
        made = []
        for kind in outdated_kinds(await hive.builds(), engine):
            answer = await hive.provision_build(kind)
            if not answer.done:
                text = f"{node}: making the {kind} worker build anew (llama-cpp-python {engine.version})"
                errand.narrator.tell("rebuild", text, cute="🏗️")
            errand.now(f"waiting for the {kind} worker build on {node}")
            end = await self.feed.outcome(hive, answer, errand, node)
            if end.build is None:
                raise BadPeerError(f"the hive at {node} says it has made a {kind} worker build, and not which")
            made.append(end.build.id)
        return made
