"""Where a task runs, as a table of clusters and decisions."""

from dataclasses import replace

import pytest

from queen_rbee.domain.facts import Cluster, DeviceFacts, Load, Wish, WorkerFacts
from queen_rbee.domain.scheduler import NodeLost, Placement, Refuse, SpawnWorker, UseWorker, Wait, place
from rbee_shared.contracts.workers import WorkerState

GB = 10**9
MODEL = "builtin:storyteller"
CPU = DeviceFacts("localhost", "cpu", "cpu", 0, "some CPU", 32 * GB, 20 * GB)
RTX_3060 = DeviceFacts("localhost", "cuda:0", "cuda", 0, "RTX 3060", 12 * GB, 12 * GB)
RTX_3090 = DeviceFacts("localhost", "cuda:1", "cuda", 1, "RTX 3090", 24 * GB, 9 * GB)
ELSEWHERE = DeviceFacts("mac", "metal:0", "metal", 0, "M3", 64 * GB, 60 * GB)


def worker(id_: str, state: WorkerState = WorkerState.IDLE, slots_free: int = 1, **facts: str) -> WorkerFacts:
    known = {"node": "localhost", "model_ref": MODEL, "backend": "cpu", "device": "cpu", **facts}
    return WorkerFacts(id=id_, state=state, slots_free=slots_free, idle_since_s=0.0, **known)  # type: ignore[arg-type]


def wish(**facts: str | int | None) -> Wish:
    return Wish(**{"model_ref": MODEL, "node": "localhost", **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "cluster", "expected"),
    [
        pytest.param(wish(), Cluster((CPU,)), SpawnWorker, id="nothing runs: start a worker"),
        pytest.param(wish(), Cluster((CPU,), (worker("w1"),)), UseWorker, id="an idle worker wins"),
        pytest.param(wish(), Cluster((CPU,), (worker("w1", slots_free=0),)), Wait, id="every slot busy: wait"),
        pytest.param(wish(), Cluster((CPU,), (worker("w1", WorkerState.LOADING),)), Wait, id="loading: wait"),
        pytest.param(
            wish(), Cluster((CPU,), (), (Load("localhost", MODEL, "cpu"),)), Wait, id="a load under way: share"
        ),
        pytest.param(
            wish(), Cluster((CPU,), (worker("w1", WorkerState.FAILED),)), SpawnWorker, id="a dead one is none"
        ),
        pytest.param(
            wish(), Cluster((CPU,), (worker("w1", WorkerState.DRAINING),)), SpawnWorker, id="nor a leaving one"
        ),
        pytest.param(
            wish(), Cluster((CPU,), (worker("w1", model_ref="x"),)), SpawnWorker, id="another model is no help"
        ),
        pytest.param(wish(), Cluster((CPU,), (worker("w1", node="mac"),)), SpawnWorker, id="another node is no help"),
        pytest.param(wish(device=7), Cluster((CPU,)), Refuse, id="no such index"),
        pytest.param(wish(backend="cuda"), Cluster((CPU,)), Refuse, id="no such backend"),
        pytest.param(wish(), Cluster((ELSEWHERE,)), NodeLost, id="the node is gone"),
        pytest.param(
            wish(), Cluster((), (worker("w1"),), silent=frozenset({"localhost"})), Wait, id="a silent node: wait"
        ),
        pytest.param(wish(device="cpu"), Cluster((CPU, RTX_3060)), SpawnWorker, id="the processor by its name"),
    ],
)
def test_place(asked: Wish, cluster: Cluster, expected: type[Placement]) -> None:
    assert type(place(asked, cluster)) is expected


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        (wish(), RTX_3090),
        (wish(backend="cpu"), CPU),
        (wish(device="gpu0"), RTX_3060),
        (wish(device="CUDA:1"), RTX_3090),
        (wish(backend="cuda", device=0), RTX_3060),
        (wish(device="cpu:0"), CPU),
    ],
)
def test_the_strongest_fitting_device_is_chosen(asked: Wish, device: DeviceFacts) -> None:
    placement = place(asked, Cluster((CPU, RTX_3060, RTX_3090)))

    assert isinstance(placement, SpawnWorker)
    assert placement.device == device


def test_ties_break_on_ids_and_free_slots_come_first() -> None:
    two = Cluster((CPU,), (worker("w2", slots_free=2), worker("w1", slots_free=2), worker("w0", slots_free=1)))

    assert place(wish(), two) == UseWorker("w1", f"worker w1 has {MODEL} loaded and a free slot")


def test_reasons_name_the_facts() -> None:
    several = place(wish(), Cluster((CPU, RTX_3090)))
    single = place(wish(), Cluster((CPU,)))
    refused = place(wish(backend="metal", device=7), Cluster((CPU, RTX_3060)))
    nothing = place(wish(), Cluster())

    assert isinstance(several, SpawnWorker)
    assert several.reason == "most memory (24 GB) of 2 devices"
    assert isinstance(single, SpawnWorker)
    assert single.reason == "the only device there that fits the request"
    assert refused == Refuse("localhost has no backend metal device 7; its devices are: cpu, cuda:0")
    assert nothing == NodeLost("the hive at localhost is gone")


def test_a_declared_device_may_be_served_by_another_build() -> None:
    device = DeviceFacts("n", "gpu0", "metal", 0, "M2", 1, 1)
    assert device.build_kind == "metal"
    assert replace(device, build="cpu").build_kind == "cpu"
