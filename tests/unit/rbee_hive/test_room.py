"""Whether there is room: what is free, less what is promised and what stays free, against what is needed."""

from typing import Any

import pytest

from rbee_hive.domain.fit.capacity import judged, margin_bytes, require_room, with_estimate
from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.estimate import Estimate, Parts
from rbee_hive.domain.fit.promises import Promise, promised_bytes
from rbee_shared.contracts.capacity import Capacity
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import InsufficientMemoryError

GB = 1_000_000_000


def capacity(**numbers: Any) -> Capacity:
    given = {"required_bytes": 4 * GB, "free_bytes": 10 * GB, "weights_bytes": 4 * GB, **numbers}
    return judged(Capacity(model="m", device="gpu0", fits=False, basis="size", **given))


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        pytest.param({}, True, id="plenty"),
        pytest.param({"free_bytes": 4 * GB}, True, id="to the byte"),
        pytest.param({"free_bytes": 4 * GB - 1}, False, id="a byte too little"),
        pytest.param({"promised_bytes": 7 * GB}, False, id="promised to a load"),
        pytest.param({"promised_bytes": 5 * GB, "margin_bytes": GB}, True, id="the margin stays"),
        pytest.param({"promised_bytes": 5 * GB, "margin_bytes": GB + 1}, False, id="the margin does not stay"),
        pytest.param({"promised_bytes": 99 * GB, "required_bytes": 0}, True, id="nothing fits anywhere"),
        pytest.param({"host_bytes": 2 * GB, "host_free_bytes": 2 * GB}, True, id="main memory just enough"),
        pytest.param({"host_bytes": 2 * GB, "host_free_bytes": GB}, False, id="main memory too small"),
    ],
)
def test_does_it_fit(numbers: dict[str, int], fits: bool) -> None:
    found = capacity(**numbers)
    assert found.fits is fits
    if fits:
        assert require_room(found) is found
    else:
        with pytest.raises(InsufficientMemoryError) as refusal:
            require_room(found)
        assert refusal.value.details == found.model_dump()


def test_a_refusal_names_what_is_in_the_way() -> None:
    with pytest.raises(
        InsufficientMemoryError, match=r"m needs 4.0 GB on gpu0, 10 GB are free \(7.0 GB are promised, 1"
    ):
        require_room(capacity(promised_bytes=7 * GB, margin_bytes=GB))
    with pytest.raises(InsufficientMemoryError, match=r"2.0 GB of main memory, which has 1.0 GB left"):
        require_room(capacity(host_bytes=2 * GB, host_free_bytes=GB))
    with pytest.raises(InsufficientMemoryError, match=r"are free$"):
        require_room(capacity(free_bytes=GB))


def test_the_margin() -> None:
    assert margin_bytes(is_main_memory=True, total_bytes=32 * GB) == 3.2 * GB
    assert margin_bytes(is_main_memory=False, total_bytes=24 * GB) == 1024**3


def test_an_estimate_takes_the_place_of_the_size() -> None:
    estimate = Estimate(Parts(4 * GB, 2 * GB, GB, GB // 2), Parts(0, 0, 0, GB))
    told = with_estimate(capacity(), estimate, ContextPlan(8192, 4), loads=3)

    assert (told.basis, told.n_ctx, told.slots, told.corrected_by_loads) == ("header", 8192, 4, 3)
    assert (told.required_bytes, told.host_bytes) == (7 * GB + GB // 2, GB)
    assert told.weights_bytes + told.kv_bytes + told.compute_bytes + told.overhead_bytes == told.required_bytes


def promise(device: str, state: WorkerState, path: str = "/a", *, host: int = 0) -> Promise:
    return Promise(device, state, path, weights_bytes=100, other_bytes=10, host_bytes=host)


@pytest.mark.parametrize(
    ("promises", "device", "is_main", "expected"),
    [
        pytest.param([promise("cpu", WorkerState.LOADING)], "cpu", True, 110, id="a load in progress"),
        pytest.param([promise("cpu", WorkerState.IDLE)], "cpu", True, 100, id="mapped weights stay promised"),
        pytest.param([promise("cpu", WorkerState.BUSY)] * 2, "cpu", True, 100, id="one file is mapped once"),
        pytest.param([promise("cpu", WorkerState.IDLE, "/mine")], "cpu", True, 0, id="the file that is asked for"),
        pytest.param(
            [promise("cpu", WorkerState.FAILED), promise("cpu", WorkerState.STOPPED)], "cpu", True, 0, id="ended"
        ),
        pytest.param([promise("gpu0", WorkerState.STARTING)], "gpu0", False, 110, id="a load on a card"),
        pytest.param([promise("gpu0", WorkerState.IDLE)], "gpu0", False, 0, id="loaded: the card itself knows"),
        pytest.param([promise("gpu1", WorkerState.LOADING)], "gpu0", False, 0, id="another card"),
        pytest.param(
            [promise("gpu0", WorkerState.LOADING, host=7)], "cpu", True, 7, id="a card's share of main memory"
        ),
    ],
)
def test_what_is_promised(promises: list[Promise], device: str, is_main: bool, expected: int) -> None:
    assert promised_bytes(promises, device, is_main_memory=is_main, mapping="/mine") == expected
