"""`node test`: it says that a node can be used where a start would succeed, and nowhere else."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import TaskGroup
from tests.support.aging_hive import TOKEN, AgingHive, Journal, aging_hive
from tests.support.probed_nodes import INSTALLED, MINE, PROBE
from tests.support.queen_parts import queen_parts
from tests.support.sshd import Sshd
from typing_extensions import override

from queen_rbee.callbacks import Callbacks
from queen_rbee.domain.nodes.node import Node
from queen_rbee.domain.nodes.preflight import Assessment, assess
from queen_rbee.domain.nodes.probe_report import HiveThere, Probe
from queen_rbee.errands import Errand
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.node_trial import NodeTrial
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit
from queen_rbee.ssh.dialling import Dialler
from rbee_shared.clocks import Clocks
from rbee_shared.errors import HiveOwnedError, NotInstalledError, SshUnreachableError, VersionMismatchError
from rbee_shared.http_app import new_app
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home

CLOCKS = Clocks()
READY = replace(PROBE, installed=INSTALLED, runs="0.1.0")
OTHER_CODE = replace(READY, installed=INSTALLED.model_copy(update={"wheel_sha256": "0" * 64}))


@dataclass
class ScriptedPreparation(Preparation):
    """Finds `found`."""

    found: Probe = PROBE

    @override
    async def look(self, visit: Visit, *, may_install: bool) -> tuple[Probe, Assessment]:
        return self.found, assess(self.found, MINE, visit.node.name, may_install=may_install)


@dataclass
class Trial:
    """A node that is this very machine, by a real SSH connection."""

    trial: NodeTrial
    preparation: ScriptedPreparation
    group: TaskGroup
    node: Node
    journal: Journal

    async def hive(self, **modes: Any) -> AgingHive:
        hive = await aging_hive(self.group, self.journal, **modes)
        there = HiveThere(url=hive.url, pid=1, instance=hive.url, alive=True)
        self.preparation.found = replace(self.preparation.found, hive=there)
        return hive

    async def carry_out(self, **changed: Any) -> dict[str, Any]:
        with anyio.fail_after(30):
            return dict(await self.trial.carry_out(replace(self.node, **changed), Errand(None, lambda _: None)))


@pytest.fixture
async def trial(tmp_path: Path, server: Sshd, dialler: Dialler) -> AsyncGenerator[Trial]:
    node = Node("mac", "ssh", host="127.0.0.1", port=server.port, user="root", key=str(server.key))
    async with (
        anyio.create_task_group() as group,
        queen_parts(tmp_path, group) as parts,
        Callbacks.open(tmp_path, CLOCKS) as callbacks,
    ):
        callbacks.serve_with(new_app("queen", "0", source="queen", body_s=5))
        links = Links(dialler, callbacks, CLOCKS, Narrator("queen", lambda _: None), group)
        preparation = ScriptedPreparation(Home(tmp_path), TOKEN, None)
        arrival = HiveArrival(CLOCKS, parts.contacts)
        yield Trial(NodeTrial(preparation, arrival, links), preparation, group, node, Journal(tmp_path / "journal"))
        group.cancel_scope.cancel()


async def test_a_bare_node_can_be_used_where_she_may_install(trial: Trial) -> None:
    facts = await trial.carry_out()

    assert facts["ready"] is False
    assert {"about": "rbee", "said": "rbee is not installed there yet", "ok": False} in facts["findings"]


async def test_and_nowhere_else(trial: Trial) -> None:
    with pytest.raises(NotInstalledError):
        await trial.carry_out(installs=False)
    trial.preparation.found = OTHER_CODE
    with pytest.raises(VersionMismatchError):
        await trial.carry_out(installs=False)


async def test_her_own_hive_is_found_ready(trial: Trial) -> None:
    trial.preparation.found = READY
    await trial.hive(queen_id="queen-1")

    assert (await trial.carry_out())["ready"] is True


@pytest.mark.parametrize(
    ("found", "modes", "error"),
    [
        pytest.param(OTHER_CODE, {}, VersionMismatchError, id="rbee would be replaced under it"),
        pytest.param(READY, {"version": "0.0.9"}, VersionMismatchError, id="it was not replaced with its rbee"),
        pytest.param(READY, {"queen_id": "queen-2"}, HiveOwnedError, id="another queen's"),
        pytest.param(READY, {"token": "another"}, HiveOwnedError, id="another cluster's"),
    ],
)
async def test_a_hive_that_a_start_would_not_take_is_said_to_be_there(
    trial: Trial, found: Probe, modes: dict[str, Any], error: type[Exception]
) -> None:
    trial.preparation.found = found
    hive = await trial.hive(**modes)

    with pytest.raises(error):
        await trial.carry_out()
    assert not hive.gone.is_set()


async def test_over_http_no_ssh_is_needed_where_a_hive_answers(trial: Trial, server: Sshd) -> None:
    hive = await trial.hive()
    server.stop()

    over_http = {"transport": "http", "hive_port": urlsplit(hive.url).port}
    assert await trial.carry_out(**over_http) == {"ready": True}
    hive.queen_id = "queen-2"
    with pytest.raises(HiveOwnedError):
        await trial.carry_out(**over_http)
    hive.gone.set()
    await anyio.sleep(0.5)
    with pytest.raises(SshUnreachableError):
        await trial.carry_out(**over_http)
