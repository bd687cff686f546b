"""Makes sure that this very rbee is on a node: looks, says what was found, and installs or updates it where it may."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from queen_rbee.domain.nodes.locks import pins_for
from queen_rbee.domain.nodes.node import DEFAULT_HOME, Node
from queen_rbee.domain.nodes.preflight import Assessment, Install, Mine, Ready, Refuse, assess
from queen_rbee.domain.nodes.probe_report import HiveThere, Installed, Probe, Python
from queen_rbee.domain.nodes.python_choice import choose_python
from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.here import ENGINE, OwnRbee, own_rbee
from queen_rbee.nodes.installer import Version, install
from queen_rbee.nodes.payload import Payload, payload
from queen_rbee.nodes.probe import probe
from queen_rbee.nodes.shell import Shell
from queen_rbee.nodes.waker import Doing
from queen_rbee.nodes.wheelhouse import current_wheelhouse, current_wheelhouses, own_engine
from rbee_shared.errors import PythonMissingError, RbeeError, VersionMismatchError
from rbee_shared.narration import Level, Narrator
from rbee_shared.paths import Home


@dataclass(frozen=True)
class Visit:
    """One visit to a node: by which shell, who is told of it, and who wants to know what it is waiting for."""

    node: Node
    shell: Shell
    tell: Narrator
    doing: Doing


@dataclass(frozen=True)
class Prepared:
    """A node with this rbee on it. `home`: absolute, there. `hive`: the one that runs there already."""

    user: str
    home: str
    version: Version
    hive: HiveThere | None


@dataclass
class Preparation:
    """`token`: the cluster's; `wheels_dir`: finished engines that go along where they fit."""

    home: Home
    token: str = field(repr=False)
    wheels_dir: Path | None
    _own: OwnRbee | None = None
    _making: anyio.Lock = field(default_factory=anyio.Lock)

    async def own(self) -> OwnRbee:
        """What she runs herself; made once."""
        async with self._making:
            if self._own is None:
                self._own = await anyio.to_thread.run_sync(own_rbee)
            return self._own

    async def look(self, visit: Visit, *, may_install: bool) -> tuple[Probe, Assessment]:
        """What is there, and what follows from it. Changes nothing.

        Raises:
            ShellUnusableError, SshUnreachableError: nothing could be found out.
        """
        visit.doing(f"looking at {visit.node.name}")
        found = await probe(visit.shell, visit.node.home or DEFAULT_HOME)
        return found, assess(found, await self._mine(), visit.node.name, may_install=may_install)

    async def prepare(self, visit: Visit, *, may_install: bool) -> Prepared:
        """Have this rbee there. A hive of another version that runs there is left alone.

        Raises:
            PythonMissingError, NotInstalledError, DiskFullError, InstallFailedError: it cannot be had.
            VersionMismatchError: another version's hive runs there.
        """
        found, assessment = await self.look(visit, may_install=may_install)
        verdict = assessment.verdict
        if not isinstance(verdict, Ready):
            say_findings(visit, assessment)
        if (error := obstacle(visit.node, found, assessment)) is not None:
            raise error
        if isinstance(verdict, Ready):
            return _prepared(found, verdict.installed)
        return _prepared(found, await self.install(visit, found, assessment))

    async def as_it_is(self, visit: Visit) -> Prepared | None:
        """The node if this very rbee is on it already; nothing is changed."""
        found, assessment = await self.look(visit, may_install=False)
        if not isinstance(assessment.verdict, Ready):
            return None
        return _prepared(found, assessment.verdict.installed)

    async def install(self, visit: Visit, found: Probe, assessment: Assessment) -> Installed:
        """Put this rbee there, beside what is there; from then on it is the current one. The verdict was `Install`.

        Raises:
            DiskFullError, InstallFailedError, HiveOwnedError: it cannot be; what was there still is.
        """
        order, name = assessment.verdict, visit.node.name
        assert isinstance(order, Install)
        visit.doing(f"installing rbee on {name}")
        visit.tell.tell("install", f"installing rbee on {name}", cute="📦")

        def say(text: str) -> None:
            visit.tell.tell("install_step", f"{name}: {text}", cute="📦")
            visit.doing(f"installing rbee on {name}: {text}")

        sent = await anyio.to_thread.run_sync(self._payload, await self.own(), assessment, order)
        site = Site(visit.shell, name, found.home, order.python.path)
        installed = await install(site, sent, say, token=self.token)
        visit.tell.tell("installed", f"rbee {installed.version} is installed on {name}", cute="✅")
        return installed

    async def python_of(self, node: str, found: Probe) -> Python:
        """The Python there that rbee runs on, or would.

        Raises:
            PythonMissingError: none.
        """
        chosen = choose_python(found.pythons, (await self.own()).tag)
        if chosen is None:
            raise PythonMissingError(f"{node} has no Python from 3.11 on that rbee runs on")
        return chosen

    async def engine_version(self) -> str:
        """Of llama-cpp-python, as worker builds of this rbee have it."""
        own = await self.own()
        return next(pin.version for pin in pins_for(own.engine_lock, own.tag.markers()) if pin.name == ENGINE)

    def _payload(self, own: OwnRbee, assessment: Assessment, order: Install) -> Payload:
        wheelhouse = current_wheelhouse(self.home, own, order.tag.name) if order.wheelhouse else None
        engines = [self.wheels_dir / name for name in assessment.engines] if self.wheels_dir is not None else []
        if assessment.own_engine and not engines and (mine := own_engine(self.home, own)) is not None:
            engines.append(mine)
        return payload(own, order.tag, wheelhouse, engines)

    async def _mine(self) -> Mine:
        own = await self.own()
        wheelhouses = await anyio.to_thread.run_sync(current_wheelhouses, self.home, own)
        return await anyio.to_thread.run_sync(partial(own.for_nodes, wheelhouses, self.wheels_dir))


def _prepared(found: Probe, installed: Installed) -> Prepared:
    hive = found.hive if found.hive is not None and found.hive.alive else None
    return Prepared(found.user, found.home, Version.of(found.home, installed), hive)


def obstacle(node: Node, found: Probe, assessment: Assessment) -> RbeeError | None:
    """What keeps a hive from being started there, if anything does. One of another version that runs is left alone."""
    verdict, hive = assessment.verdict, found.hive
    if isinstance(verdict, Refuse):
        return verdict.error
    if isinstance(verdict, Install) and hive is not None and hive.alive:
        return VersionMismatchError(
            f"the hive that runs on {node.name} ({hive.url}, pid {hive.pid}) is of another version",
            hint=f"Update it when its workers are done: rbee-keeper node update {node.name}.",
        )
    return None


def say_findings(visit: Visit, assessment: Assessment) -> None:
    """One line for each finding."""
    for finding in assessment.findings:
        level: Level = "info" if finding.is_good else "warning"
        cute = "✔️" if finding.is_good else "❗"
        visit.tell.tell(f"preflight_{finding.about}", f"{visit.node.name}: {finding.said}", cute=cute, level=level)
