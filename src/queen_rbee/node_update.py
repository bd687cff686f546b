"""Brings a node to this queen's own version: nothing that works is interrupted, and what was up is up again."""

from dataclasses import dataclass

import anyio

from queen_rbee.domain.nodes.preflight import Install, Refuse
from queen_rbee.domain.nodes.probe_report import HiveThere, Probe
from queen_rbee.hive_client import HiveClient
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.nodes.link import NodeLink
from queen_rbee.nodes.preparation import Preparation, Visit, say_findings
from queen_rbee.nodes.remote_start import Place, end_remotely
from rbee_shared.contracts.nodes import NodeAction
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import InstallFailedError, NoCapacityError

_DRAIN_POLL_S = 0.5


@dataclass(frozen=True)
class NodeUpdate:
    """The steps of `node update`."""

    catalog: NodeCatalog
    preparation: Preparation
    contacts: HiveContacts
    lifecycle: HiveLifecycle

    async def update(self, visit: Visit, link: NodeLink, action: NodeAction) -> dict[str, object]:
        """Do it, or with `check` only say whether it is needed; what was found and done.

        Raises:
            NoCapacityError: workers there are busy, and it was not told to wait for them.
            RbeeError: it cannot be done; the version there before goes on.
        """
        found, assessment = await self.preparation.look(visit, may_install=True)
        say_findings(visit, assessment)
        if isinstance(assessment.verdict, Refuse):
            raise assessment.verdict.error
        before = found.installed.version if found.installed is not None else None
        facts: dict[str, object] = {"needed": isinstance(assessment.verdict, Install), "installed": before}
        if action.check or not facts["needed"]:
            return facts
        name = visit.node.name
        was_up = self.lifecycle.hives.get(name) is not None
        if found.hive is not None and found.hive.alive:
            await self._stand_down(visit, await self._client(link, name, found.hive), wait=action.drain)
            await self._stop(visit, found)
        installed = await self.preparation.install(visit, found, assessment)
        await self.catalog.note_version(name, installed.version)
        if was_up:
            await self._bring_back(visit)
        return {**facts, "installed": installed.version, "restarted": was_up}

    async def _client(self, link: NodeLink, name: str, hive: HiveThere) -> HiveClient:
        """Of the hive that runs there, known to this queen or not: its version may be too old to be adopted."""
        if (entry := self.lifecycle.hives.get(name)) is not None:
            return self.contacts.client_of(entry)
        epoch = await self.catalog.begin_epoch()
        return HiveClient(self.contacts.client, await link.url(hive.url), self.contacts.identity.token, epoch)

    async def _stand_down(self, visit: Visit, hive: HiveClient, *, wait: bool) -> None:
        """Go on when no worker there is busy."""
        name = visit.node.name
        was_drained = visit.node.drained
        try:
            while busy := [worker for worker in (await hive.workers()).workers if worker.state is WorkerState.BUSY]:
                if not wait:
                    raise NoCapacityError(
                        f"{len(busy)} of the workers on {name} are busy",
                        hint=f"Wait for them: rbee-keeper node update {name} --drain",
                    )
                await self.lifecycle.drain(name, drained=True)
                visit.doing(f"waiting for {len(busy)} busy workers on {name}")
                await anyio.sleep(_DRAIN_POLL_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self.lifecycle.drain(name, drained=was_drained)

    async def _stop(self, visit: Visit, found: Probe) -> None:
        name = visit.node.name
        visit.doing(f"waiting for the hive at {name} to stop")
        if (entry := self.lifecycle.hives.get(name)) is not None:
            gone = await self.lifecycle.stop(entry)
        else:
            gone = await end_remotely(visit.shell, Place.of(visit.node, found), self.lifecycle.clocks.hive_drain_s)
        if not gone:
            raise InstallFailedError(
                f"the hive at {name} does not stop",
                hint=f"Stop it there: rbee-hive stop --kill, then update {name} again.",
            )

    async def _bring_back(self, visit: Visit) -> None:
        """Start the hive again, and make anew the worker builds that are of another engine than this version's."""
        entry = await self.lifecycle.ensure(visit.node.name, visit.tell, visit.doing)
        hive, current = self.contacts.client_of(entry), await self.preparation.engine_version()
        for build in await hive.builds():
            if build.path is not None and build.version != current:
                text = f"{visit.node.name}: making the {build.kind} worker build anew (llama-cpp-python {current})"
                visit.tell.tell("rebuild", text, cute="🏗️")
                await hive.provision_build(build.kind)
