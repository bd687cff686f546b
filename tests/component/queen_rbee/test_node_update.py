"""`node update`: what works is not interrupted, what was up is up again, and nothing is said to be done that is not.

The queen's own parts, hives over real HTTP, and a shell; what is installed there is a script that notes its orders.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.abc import TaskGroup
from tests.support.aging_hive import DEVICES, ENGINE, TOKEN, AgingHive, Journal, aging_hive, build, worker
from tests.support.local_shell import LocalShell
from tests.support.probed_nodes import INSTALLED, PROBE, python
from tests.support.queen_parts import queen_parts
from typing_extensions import override

from queen_rbee.domain.nodes.node import Node
from queen_rbee.domain.nodes.preflight import Assessment, Install, Ready
from queen_rbee.domain.nodes.probe_report import HiveThere, Installed, Probe
from queen_rbee.errands import Errand
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_ending import HiveEnding
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveEntry, HiveRegistry
from queen_rbee.node_stop import NodeStop
from queen_rbee.node_update import NodeUpdate
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.link import Links, NodeLink
from queen_rbee.nodes.preparation import Preparation, Visit
from queen_rbee.nodes.waker import Doing, Gone, Waker
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.reach import Callback, DirectReach
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import NodeAction
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.errors import (
    BuildFailedError,
    HiveOwnedError,
    InstallFailedError,
    NoCapacityError,
    NodeUnreachableError,
)
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home

MAC = Node("mac", "ssh")
NEW_ID = "0.1.0-abababababab-2"


class StraightLink(NodeLink):
    """To programs of this very machine."""

    def __init__(self) -> None:
        """Nothing is connected."""

    @override
    async def url(self, url: str) -> str:
        return url


@dataclass
class ScriptedPreparation(Preparation):
    """Finds `found`; what it installs is a script. `failure`: instead of that."""

    found: Probe = PROBE
    journal: Journal = field(default_factory=lambda: Journal(Path("/nowhere")))
    is_new: bool = False
    failure: Exception | None = None

    @override
    async def look(self, visit: Visit, *, may_install: bool) -> tuple[Probe, Assessment]:
        tag = python().tag
        assert tag is not None
        if self.is_new:
            assert self.found.installed is not None
            return self.found, Assessment((), Ready(self.found.installed))
        return self.found, Assessment((), Install(python(), tag, wheelhouse=False, was=self.found.installed))

    @override
    async def install(self, visit: Visit, found: Probe, assessment: Assessment) -> Installed:
        if self.failure is not None:
            raise self.failure
        await self.journal.note("install")
        return INSTALLED.model_copy(update={"id": NEW_ID})

    @override
    async def engine_version(self) -> str:
        return ENGINE


@dataclass
class ScriptedWaker(Waker):
    """Its hives are `AgingHive`s that have the builds of the one before."""

    contacts: HiveContacts
    journal: Journal
    group: TaskGroup
    builds: list[dict[str, Any]] = field(default_factory=list)
    modes: dict[str, Any] = field(default_factory=dict)

    @override
    async def wake(self, node: Node, tell: Narrator, doing: Doing, gone: Gone) -> HiveEntry:
        await self.journal.note("start")
        hive = await aging_hive(self.group, self.journal, builds=self.builds, **self.modes)
        return known(self.contacts, hive)

    @override
    async def find(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry | None:
        raise AssertionError("an update starts what it needs")


def known(contacts: HiveContacts, hive: AgingHive) -> HiveEntry:
    """The queen has it."""
    entry = HiveEntry("mac", hive.url, DirectReach(Callback("http://queen")), 1, hive_id=hive.url)
    contacts.hives.put(entry)
    contacts.hives.learn_devices(entry, DEVICES)
    return entry


@dataclass
class Mac:
    """The node, and the queen's parts that bring it to her version."""

    update: NodeUpdate
    preparation: ScriptedPreparation
    waker: ScriptedWaker
    contacts: HiveContacts
    journal: Journal
    home: Path
    group: TaskGroup
    errand: Errand = field(default_factory=lambda: Errand(None, lambda _: None))

    @property
    def hives(self) -> HiveRegistry:
        return self.contacts.hives

    async def runs(self, *, adopted: bool = False, **modes: Any) -> AgingHive:
        """A hive is up there."""
        hive = await aging_hive(self.group, self.journal, **modes)
        there = HiveThere(url=hive.url, pid=1, instance=hive.url, alive=True)
        self.preparation.found = replace(self.preparation.found, hive=there)
        if adopted:
            known(self.contacts, hive)
        return hive

    async def carry_out(self, **options: bool) -> dict[str, object]:
        visit = Visit(MAC, LocalShell(), self.errand.narrator, self.errand.now)
        with anyio.fail_after(30):
            async with self.contacts.lock("mac"):
                return await self.update.update(visit, StraightLink(), NodeAction(**options), self.errand)

    @property
    def told(self) -> str:
        return self.errand.log.everything().decode()

    def program(self, version_id: str, status: int = 0) -> None:
        """What is installed there as `version_id`; `status`: of its `rbee-hive stop`."""
        directory = self.home / "versions" / version_id / "bin"
        directory.mkdir(parents=True)
        script = directory / "python"
        script.write_text(f'#!/bin/sh\nshift\necho "$@" >> "{self.journal.path}"\nexit {status}\n')
        script.chmod(0o755)


@pytest.fixture
async def group() -> AsyncGenerator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
async def mac(tmp_path: Path, group: TaskGroup) -> AsyncGenerator[Mac]:
    """Asleep, with an older rbee."""
    clocks, told = Clocks(hive_drain_s=0.3), Narrator("queen", lambda _: None)
    journal, home = Journal(tmp_path / "journal"), tmp_path / ".rbee"
    async with queen_parts(tmp_path, group) as parts:
        contacts, catalog = parts.contacts, parts.contacts.catalog
        await catalog.put(MAC)
        waker = ScriptedWaker(contacts, journal, group)
        directory = NodeDirectory(catalog, tmp_path / "config")
        lifecycle = HiveLifecycle(
            directory, contacts.hives, contacts, HiveEnding(clocks, contacts, told), {"ssh": waker}, told
        )
        found = replace(PROBE, home=str(home), installed=INSTALLED, runs="0.0.9")
        preparation = ScriptedPreparation(Home(tmp_path), TOKEN, None, found=found, journal=journal)
        links = cast("Links", None)  # nothing is dialled here
        update = NodeUpdate(
            catalog=catalog,
            preparation=preparation,
            contacts=contacts,
            lifecycle=lifecycle,
            stopping=NodeStop(lifecycle, links, preparation),
            matchmaker=parts.matchmaker,
            feed=ProvisionFeed(contacts.session, lambda _: None),
        )
        mac = Mac(update, preparation, waker, contacts, journal, home, group)
        mac.program(NEW_ID)
        yield mac


OLD: dict[str, Any] = {"version": "0.0.9", "started_at": 1.0}


async def test_a_hive_of_the_version_before_is_replaced_after_the_installation_and_up_again(mac: Mac) -> None:
    await mac.runs(**OLD)

    facts = await mac.carry_out()

    assert mac.journal.lines == ["install", "stop --kill", "start"]
    assert facts == {"needed": True, "installed": "0.1.0", "restarted": True, "builds": []}
    assert mac.hives.get("mac") is not None


async def test_an_adopted_hive_is_stopped_by_word(mac: Mac) -> None:
    await mac.runs(adopted=True, **OLD)

    await mac.carry_out()

    assert mac.journal.lines == ["install", "stop", "start"]


async def test_what_cannot_be_installed_leaves_the_old_hive_running(mac: Mac) -> None:
    hive = await mac.runs(adopted=True, **OLD)
    mac.preparation.failure = InstallFailedError("no index")

    with pytest.raises(InstallFailedError):
        await mac.carry_out()

    assert mac.journal.lines == []
    assert not hive.gone.is_set()
    assert len(mac.hives.devices()) == 1, "it is given work again"


@pytest.mark.parametrize("state", ["busy", "loading", "starting"])
async def test_a_worker_at_work_keeps_everything_as_it_is(mac: Mac, state: str) -> None:
    await mac.runs(workers=[worker(state)], **OLD)

    with pytest.raises(NoCapacityError, match=f"worker-cpu-1 is {state}") as refused:
        await mac.carry_out()

    assert refused.value.hint == "Wait for it: rbee-keeper node update mac --drain"
    assert mac.journal.lines == []


async def test_a_slot_that_the_queen_has_promised_is_work_too(mac: Mac) -> None:
    await mac.runs(adopted=True, workers=[worker("idle")], **OLD)
    record = WorkerRecord.model_validate(worker("idle"))
    mac.update.matchmaker.workers.put("mac", record, promised_to="task-1")

    with pytest.raises(NoCapacityError, match="promised to a task"):
        await mac.carry_out()

    mac.update.matchmaker.workers.release("task-1")
    await mac.carry_out()
    assert mac.journal.lines == ["install", "stop", "start"]


async def test_with_drain_the_end_of_the_work_is_waited_for_and_nothing_new_begins_meanwhile(
    mac: Mac, group: TaskGroup
) -> None:
    hive = await mac.runs(adopted=True, workers=[worker("busy")], **OLD)
    assert len(mac.hives.devices()) == 1

    async def work_ends() -> None:
        await hive.looked_at.wait()
        await anyio.sleep(0.7)
        assert mac.hives.devices() == (), "nobody is sent there"
        assert mac.journal.lines == []
        (node,) = await mac.update.catalog.nodes()
        assert not node.drained, "a queen that is killed now leaves no mark"
        assert "worker-cpu-1 is busy" in mac.errand.doing
        hive.workers.clear()

    group.start_soon(work_ends)
    await mac.carry_out(drain=True)

    assert mac.journal.lines == ["install", "stop", "start"]
    assert len(mac.hives.devices()) == 1, "it is given work again"


async def test_a_node_that_slept_has_its_builds_made_anew_and_sleeps_again(mac: Mac) -> None:
    mac.waker.builds = [build("cpu", "0.3.35"), build("cuda", "0.3.35"), build("cuda", ENGINE)]

    facts = await mac.carry_out()

    assert mac.journal.lines == ["install", "start", "build cpu", "stop"]
    assert (facts["builds"], facts["restarted"]) == ([f"cpu-{ENGINE}"], False)
    assert "making the cpu worker build anew" in mac.told
    assert "compiling cpu" in mac.told, "its narration is shown"
    assert mac.hives.get("mac") is None


async def test_builds_are_made_anew_although_rbee_is_there_already(mac: Mac) -> None:
    mac.preparation.is_new = True
    mac.waker.builds = [build("cpu", "0.3.35")]

    facts = await mac.carry_out()

    assert mac.journal.lines == ["start", "build cpu", "stop"]
    assert facts["needed"] is False, "nobody could say before"


async def test_a_build_that_cannot_be_made_is_no_success(mac: Mac) -> None:
    mac.waker.builds, mac.waker.modes = [build("cpu", "0.3.35")], {"fails_builds": True}

    with pytest.raises(BuildFailedError, match="no compiler"):
        await mac.carry_out()


async def test_an_update_that_broke_off_before_the_stop_is_finished_by_the_next(mac: Mac) -> None:
    """The installed version is the queen's; the hive is older, by the clock of its machine."""
    mac.preparation.is_new = True
    mac.program(INSTALLED.id)
    await mac.runs(started_at=INSTALLED.installed_at_unix - 1.0)
    assert (await mac.carry_out(check=True))["needed"] is True

    await mac.carry_out()

    assert mac.journal.lines == ["stop --kill", "start"]


async def test_what_is_right_is_left_alone(mac: Mac) -> None:
    mac.preparation.is_new = True
    hive = await mac.runs(adopted=True, workers=[worker("busy")], builds=[build("cpu", ENGINE)])

    facts = await mac.carry_out()

    assert (mac.journal.lines, hive.gone.is_set()) == ([], False)
    assert facts == {"needed": False, "installed": "0.1.0", "restarted": False, "builds": []}


async def test_a_check_changes_nothing(mac: Mac) -> None:
    await mac.runs(builds=[build("cpu", "0.3.35")], workers=[worker("busy")], **OLD)

    facts = await mac.carry_out(check=True)

    assert facts == {"needed": True, "installed": "0.1.0", "outdated_builds": ["cpu"]}
    assert mac.journal.lines == []


async def test_a_drained_node_is_updated_and_stays_drained(mac: Mac) -> None:
    await mac.update.lifecycle.drain("mac", drained=True)
    await mac.runs(**OLD)

    await mac.carry_out()

    (node,) = await mac.update.catalog.nodes()
    assert (node.drained, mac.hives.is_drained("mac")) == (True, True)
    assert mac.hives.devices() == ()
    assert mac.journal.lines[-1] == "start"


@pytest.mark.parametrize(
    ("modes", "said"),
    [({"token": "another"}, "another cluster's"), ({"queen_id": "queen-2"}, "the queen at http://10.9.9.9:8080")],
)
async def test_anothers_hive_is_nobodys_business(mac: Mac, modes: dict[str, Any], said: str) -> None:
    hive = await mac.runs(**modes)

    for order in ({"check": True}, {}):
        with pytest.raises(HiveOwnedError, match=said):
            await mac.carry_out(**order)

    assert (mac.journal.lines, hive.gone.is_set()) == ([], False)


async def test_her_own_hive_is_not_anothers(mac: Mac) -> None:
    await mac.runs(queen_id="queen-1", **OLD)

    await mac.carry_out()

    assert mac.journal.lines == ["install", "stop --kill", "start"]


async def test_a_hive_that_does_not_answer_is_ended_too(mac: Mac) -> None:
    hive = await mac.runs(workers=[worker("busy")], **OLD)
    hive.gone.set()
    await anyio.sleep(0.5)

    await mac.carry_out()

    assert mac.journal.lines == ["install", "stop --kill", "start", "stop"]


async def test_a_hive_that_does_not_go_is_a_failure_and_no_second_one_is_started(mac: Mac, tmp_path: Path) -> None:
    (mac.home / "versions" / NEW_ID / "bin" / "python").unlink()
    (mac.home / "versions" / NEW_ID / "bin").rmdir()
    mac.program(NEW_ID, status=1)
    await mac.runs(**OLD)

    with pytest.raises(NodeUnreachableError, match="the hive at mac does not stop"):
        await mac.carry_out()

    assert mac.journal.lines == ["install", "stop --kill"]


async def test_an_operator_is_told_to_start_his_hive_again(mac: Mac) -> None:
    await mac.runs(standalone=True, **OLD)

    await mac.carry_out()

    assert "an operator has started the hive on mac to stand alone" in mac.told
