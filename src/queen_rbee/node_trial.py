"""Tries a node: everything that a start would check, from reaching it to whose hive runs there. Changes nothing."""

from dataclasses import dataclass

from queen_rbee.domain.nodes.node import DEFAULT_HIVE_PORT, Node
from queen_rbee.domain.nodes.preflight import Ready
from queen_rbee.errands import Errand
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit, obstacle, say_findings
from queen_rbee.nodes.running_hive import RunningHive, ask_hive
from queen_rbee.ssh.target import Target
from rbee_shared.errors import RbeeError, VersionMismatchError
from rbee_shared.version import __version__


@dataclass(frozen=True)
class NodeTrial:
    """In the order of a start, so that the first thing that is wrong is what a start would say."""

    preparation: Preparation
    arrival: HiveArrival
    links: Links

    async def answers_at(self, node: Node, errand: Errand) -> str | None:
        """Where a hive answers on a node of transport `http`; None where none does.

        Raises:
            VersionMismatchError: it is of another version.
            RequestTimeoutError: something is there, and does not answer.
        """
        url = f"http://{node.address}:{node.hive_port or DEFAULT_HIVE_PORT}"
        if node.transport != "http" or await self.arrival.looked_at(url) is None:
            return None
        errand.narrator.tell("node_answers", f"a hive answers on {node.name}", cute="👋")
        return url

    async def carry_out(self, node: Node, errand: Errand) -> dict[str, object]:
        """What was found: `ready` if a start installs nothing, and a line for each finding.

        Raises:
            RbeeError: the first thing that would keep a hive from starting there.
        """
        errand.now(f"connecting to {node.name}")
        if (url := await self.answers_at(node, errand)) is not None:
            await ask_hive(self.arrival.contacts, url, f"the hive at {url}")
            return {"ready": True}
        tell = errand.narrator
        async with self.links.use(Target.of(node)) as link:
            visit = Visit(node, await link.connection(), tell, errand.now)
            tell.tell("node_login", f"{node.name}: reached and logged in over SSH", cute="🔑")
            found, assessment = await self.preparation.look(visit, may_install=node.installs)
            say_findings(visit, assessment)
            if (error := obstacle(node, found, assessment)) is not None:
                raise error
            if node.transport == "ssh":
                await link.open_back()
                await (await link.connection()).require_forwarding(node.port or 22)
                tell.tell("node_forwards", f"{node.name}: ports can be forwarded", cute="✔️")
            hive = await RunningHive.find(self.arrival.contacts, link, node, found.hive)
        if hive is not None and (other := _other_version(node, hive)) is not None:
            raise other
        findings = [{"about": f.about, "said": f.said, "ok": f.is_good} for f in assessment.findings]
        return {"ready": isinstance(assessment.verdict, Ready), "findings": findings}


def _other_version(node: Node, hive: RunningHive) -> RbeeError | None:
    """One that was not replaced when its rbee was updated."""
    if hive.status.version == __version__:
        return None
    return VersionMismatchError(
        f"the hive that runs on {node.name} is version {hive.status.version}, this queen is {__version__}",
        hint=f"Update it when its workers are done: rbee-keeper node update {node.name}.",
    )
