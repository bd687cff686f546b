"""What an update of a node has to do, and what it waits for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.probed_nodes import INSTALLED

from queen_rbee.domain.facts import Cluster, Load, WorkerFacts
from queen_rbee.domain.nodes.update import Engine, at_work, outdated_kinds, runs_other_code
from rbee_shared.contracts.hives import HiveStatus
from rbee_shared.contracts.nodes import CpuDevice, Devices
from rbee_shared.contracts.provisions import BuildRow
from rbee_shared.contracts.workers import WorkerRecord, WorkerState

ENGINE = Engine("0.3.36", "3.11.2")
CPU = CpuDevice(name="c", cores=1, ram_bytes=1, free_bytes=1, ram_gb=0.0)


def record(state: WorkerState, worker_id: str = "w1") -> WorkerRecord:
    return WorkerRecord(
        id=worker_id, url=None, model_ref="m", backend="cpu", device="cpu", state=state, pid=1, started_at=1,
        last_activity=1,
    )  # fmt: skip


def facts(*, in_use: bool, node: str = "mac", worker_id: str = "w1") -> WorkerFacts:
    return WorkerFacts(worker_id, node, "m", "cpu", "cpu", WorkerState.IDLE, 1, 0.0, in_use=in_use)


def build(kind: str = "cpu", version: str = "0.3.36", **more: Any) -> BuildRow:
    fields = {"path": "/w", "python": "cp311", "platform": "linux-x86_64", "made_at_unix": 1, "source": "compiled"}
    return BuildRow.model_validate({"id": f"{kind}-{version}", "kind": kind, "version": version, **fields, **more})


def hive(**more: Any) -> HiveStatus:
    fields = {"name": "mac", "url": "u", "instance": "i", "models": 0, "downloaded": 0, "models_dir": "/m"}
    known = {
        "version": "0.1.0",
        "started_at": 6.5,
        "disk_free_bytes": 1,
        "devices": Devices(cpu=CPU, models=0, workers=0),
    }
    return HiveStatus.model_validate({**fields, **known, **more})


@pytest.mark.parametrize(
    ("state", "is_at_work"),
    [
        (WorkerState.STARTING, True),
        (WorkerState.LOADING, True),
        (WorkerState.BUSY, True),
        (WorkerState.IDLE, False),
        (WorkerState.DRAINING, False),
        (WorkerState.STOPPED, False),
        (WorkerState.FAILED, False),
    ],
)
def test_a_worker_that_computes_or_comes_up_is_work(state: WorkerState, *, is_at_work: bool) -> None:
    assert at_work("mac", [record(state)], Cluster()) == ((f"worker w1 is {state.value}",) if is_at_work else ())


def test_what_was_promised_is_work_although_the_hive_knows_nothing_of_it() -> None:
    promised = Cluster(workers=(facts(in_use=True),), loads=(Load("mac", "tinyllama", "cpu"),))
    assert at_work("mac", [], promised) == (
        "worker w1 is promised to a task", "a worker for tinyllama is about to start"
    )  # fmt: skip
    assert at_work("mac", [record(WorkerState.IDLE)], promised)[0] == "worker w1 is promised to a task"


def test_one_worker_is_named_once() -> None:
    promised = Cluster(workers=(facts(in_use=True),))
    assert at_work("mac", [record(WorkerState.BUSY)], promised) == ("worker w1 is busy",)


def test_what_goes_on_elsewhere_is_no_matter() -> None:
    elsewhere = Cluster(
        workers=(facts(in_use=True, node="pc", worker_id="w2"), facts(in_use=False)), loads=(Load("pc", "m", "cpu"),)
    )
    assert at_work("mac", [record(WorkerState.IDLE)], elsewhere) == ()


@pytest.mark.parametrize(
    ("builds", "expected"),
    [
        pytest.param([], (), id="nothing was made there"),
        pytest.param([build()], (), id="made of this engine"),
        pytest.param([build(version="0.3.35")], ("cpu",), id="of an older one"),
        pytest.param([build(version="0.3.35"), build()], (), id="made anew already"),
        pytest.param([build(python="cp310")], ("cpu",), id="for another Python"),
        pytest.param([build(version="0.3.35", path=None)], (), id="the environment is renewed by installing"),
        pytest.param([build(version="0.3.35"), build(path=None)], (), id="the environment serves"),
        pytest.param([build("metal", "0"), build("cuda", "0"), build()], ("cuda", "metal"), id="each kind"),
    ],
)
def test_kinds_without_a_build_that_can_be_used(builds: list[BuildRow], expected: tuple[str, ...]) -> None:
    assert outdated_kinds(builds, ENGINE) == expected


@given(st.text(max_size=20))
def test_whatever_a_node_says_of_its_python(python: str) -> None:
    assert outdated_kinds([build()], Engine("0.3.36", python)) in {(), ("cpu",)}
    assert outdated_kinds([build()], Engine("0.3.36", "")) == ("cpu",)


@pytest.mark.parametrize(
    ("status", "is_other"),
    [
        pytest.param(hive(), False, id="started from what is installed"),
        pytest.param(hive(version="0.0.9"), True, id="of another version"),
        pytest.param(hive(started_at=4.5), True, id="the same version, other code: older than the installation"),
    ],
)
def test_a_hive_that_an_installation_has_overtaken(status: HiveStatus, *, is_other: bool) -> None:
    assert runs_other_code(status, INSTALLED, "0.1.0") is is_other
