"""Which NVIDIA devices a node offers, and under which number a worker finds each: CUDA's own rules, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.devices.nvidia_devices import CardReading, Cards, Part, nvidia_devices
from rbee_hive.domain.devices.visible_cards import Card, visible
from rbee_shared.machine_limits import Memory

GB = 10**9
RAM = Memory(128 * GB, 100 * GB)
PLAIN = (Card("GPU-a1"), Card("GPU-b2"), Card("GPU-b3"))
CUT = (Card("GPU-a1"), Card("GPU-b2", ("MIG-x1", "MIG-x2")), Card("GPU-c3", ()))
PCI = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@pytest.mark.parametrize(
    ("cards", "listed", "uuids"),
    [
        ((), None, []),
        (PLAIN, None, ["GPU-a1", "GPU-b2", "GPU-b3"]),
        (PLAIN, "2,0", ["GPU-b3", "GPU-a1"]),
        (PLAIN, " 1 , 0 ", ["GPU-b2", "GPU-a1"]),
        (PLAIN, "GPU-b2,0", ["GPU-b2", "GPU-a1"]),
        pytest.param(PLAIN, "GPU-a", ["GPU-a1"], id="a beginning will do"),
        pytest.param(PLAIN, "GPU-b", [], id="if only one begins so"),
        pytest.param((Card("GPU-b"), Card("GPU-b2")), "GPU-b", ["GPU-b"], id="but one that is exactly it wins"),
        pytest.param(CUT, None, ["GPU-a1", "MIG-x1", "MIG-x2"], id="a card that is cut up is its instances"),
        (CUT, "MIG-x2", ["MIG-x2"]),
        (CUT, "1", ["MIG-x1", "MIG-x2"]),
        (CUT, "GPU-b2,GPU-a1", ["MIG-x1", "MIG-x2", "GPU-a1"]),
        pytest.param(CUT, "2", [], id="a cut card without instances is nothing"),
    ],
)
def test_what_is_visible(cards: tuple[Card, ...], listed: str | None, uuids: list[str]) -> None:
    seen = visible(cards, listed)

    assert [device.uuid for device in seen.devices] == uuids
    assert [device.index for device in seen.devices] == list(range(len(uuids)))


@pytest.mark.parametrize("listed", ["", "-1", "none", "NoDevFiles", "0,-1,1"])
def test_hiding_cards_on_purpose_is_no_problem(listed: str) -> None:
    seen = visible(PLAIN, listed)
    assert (seen.problem, len(seen.devices)) == (None, 1 if listed.startswith("0") else 0)


@pytest.mark.parametrize(
    ("listed", "seen_before", "words"),
    [
        ("0,7,1", 1, "'7'"),
        ("0,GPU-zz", 1, "'GPU-zz'"),
        ("x,0", 0, "'x'"),
        ("1,1", 0, "names 1 twice"),
        ("0,1,GPU-a1", 0, "names GPU-a1 twice"),
        ("9" * 5000, 0, "999"),
        ("٣", 0, "'٣'"),
    ],
)
def test_what_names_nothing_hides_the_rest_and_is_said(listed: str, seen_before: int, words: str) -> None:
    seen = visible(PLAIN, listed)

    assert len(seen.devices) == seen_before
    assert words in (seen.problem or "")


def test_a_card_and_its_own_instance_are_one_device_twice() -> None:
    assert visible(CUT, "GPU-b2,MIG-x1").devices == ()


def test_whole_healthy_cards_are_known_by_their_number() -> None:
    seen = visible(PLAIN, "2,0")
    assert [(seen.number(device), seen.environment(device)) for device in seen.devices] == [(0, (PCI,)), (1, (PCI,))]


@pytest.mark.parametrize("cards", [CUT, (Card("GPU-a1"), Card("GPU-b2", healthy=False))])
def test_where_cuda_counts_otherwise_a_worker_sees_its_device_alone(cards: tuple[Card, ...]) -> None:
    seen = visible(cards, None)
    for device in seen.devices:
        assert seen.number(device) == 0
        assert seen.environment(device) == (("CUDA_VISIBLE_DEVICES", device.uuid), PCI)


def test_a_card_that_was_never_heard_of_keeps_its_number() -> None:
    seen = visible((Card(None, healthy=False), Card("GPU-b2")), None)

    unknown, second = seen.devices
    assert (second.index, second.uuid, seen.number(second)) == (1, "GPU-b2", 0)
    assert (unknown.uuid, seen.environment(unknown)) == (None, (PCI,))


@given(
    st.lists(
        st.builds(
            Card,
            st.none() | st.uuids().map(lambda uuid: f"GPU-{uuid}"),
            st.none() | st.lists(st.uuids().map(lambda uuid: f"MIG-{uuid}"), max_size=3).map(tuple),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.none() | st.text(alphabet="0123456789,-GPUMI ax", max_size=20),
)
def test_whatever_is_listed_devices_are_distinct_and_numbered_without_a_gap(
    cards: list[Card], listed: str | None
) -> None:
    seen = visible(cards, listed)

    assert [device.index for device in seen.devices] == list(range(len(seen.devices)))
    places = [(device.place, device.instance) for device in seen.devices]
    assert len(set(places)) == len(places)
    for device in seen.devices:
        card = cards[device.place]
        assert device.uuid == (card.uuid if device.instance is None else (card.mig or ())[device.instance])


def _whole(uuid: str, total: int | None = 80 * GB, free: int | None = 70 * GB) -> CardReading:
    return CardReading(uuid, "H100", False, (Part(uuid, "H100", total, free, 5.0, 40.0),))


def test_a_card_that_fails_now_has_a_name_and_no_facts() -> None:
    known = {0: _whole("GPU-a1"), 1: _whole("GPU-b2")}
    found = nvidia_devices(Cards(2, "580", known, {1: known[1]}), None, RAM)

    assert [name.id for name in found.names] == ["gpu0", "gpu1"]
    assert [gpu.id for gpu in found.gpus] == ["gpu1"]
    assert found.problems == ()


def test_a_card_that_never_answered_keeps_its_place() -> None:
    found = nvidia_devices(Cards(2, "580", {}, {1: _whole("GPU-b2")}), None, RAM)

    assert [name.id for name in found.names] == ["gpu0", "gpu1"]
    assert [(gpu.id, gpu.uuid) for gpu in found.gpus] == [("gpu1", "GPU-b2")]
    assert found.names[1].environment == (("CUDA_VISIBLE_DEVICES", "GPU-b2"), PCI)


def test_a_card_that_loses_its_instances_while_nobody_looks() -> None:
    cut = CardReading("GPU-a1", "H100", True, (Part("MIG-x1", "1g", 10 * GB, 9 * GB),))
    empty = CardReading("GPU-a1", "H100", True, ())
    found = nvidia_devices(Cards(1, None, {0: cut}, {0: empty}), None, RAM)

    assert (found.names, found.gpus) == ((), ())
    assert found.problems == ("GPU 0 (H100) is in MIG mode and has no instances",)


@pytest.mark.parametrize(
    ("total", "free", "unified", "vram", "left"),
    [
        (80 * GB, 70 * GB, False, 80 * GB, 70 * GB),
        (None, None, True, 128 * GB, 100 * GB),
        pytest.param(8 * GB, 9 * GB, False, 8 * GB, 8 * GB, id="a driver that miscounts"),
    ],
)
def test_memory_of_a_card(total: int | None, free: int | None, unified: bool, vram: int, left: int) -> None:
    (gpu,) = nvidia_devices(Cards(1, "580", {}, {0: _whole("GPU-a1", total, free)}), None, RAM).gpus
    assert (gpu.unified, gpu.vram_bytes, gpu.free_bytes) == (unified, vram, left)


def test_what_is_wrong_with_the_list_is_told_with_the_devices() -> None:
    found = nvidia_devices(Cards(1, "580", {}, {0: _whole("GPU-a1")}), "0,5", RAM)
    assert [gpu.id for gpu in found.gpus] == ["gpu0"]
    assert "names '5'" in found.problems[0]
