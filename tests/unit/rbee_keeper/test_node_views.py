"""What people read about nodes, whatever a queen or a node sends."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee_keeper.columns import columns
from rbee_keeper.nodes.views import NodeTexts, found, is_asleep, state_of, where
from rbee_shared.contracts.nodes import NodeFault, NodeState, NodeView

NOW_MS = 1_800_000_000_000
TEXTS = NodeTexts(NOW_MS)
CONTROL = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"} - {"\n", "\t"}
ANY = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)
)


def node(**more: Any) -> NodeView:
    return NodeView.model_validate({"name": "mac", "transport": "ssh", "state": "offline", **more})


def fault(at_ms: int) -> NodeFault:
    return NodeFault(code="SSH_UNREACHABLE", message="no route", hint="switch it on", at_ms=at_ms)


@pytest.mark.parametrize(
    ("at_ms", "said"),
    [
        (None, "never"),
        (NOW_MS + 60_000, "now"),
        (NOW_MS, "now"),
        (NOW_MS - 12_000, "12 s ago"),
        (NOW_MS - 59 * 60_000, "59 min ago"),
        (NOW_MS - 3 * 3_600_000, "3 h ago"),
        (NOW_MS - 5 * 86_400_000, "5 d ago"),
    ],
)
def test_when_it_was_seen(at_ms: int | None, said: str) -> None:
    assert TEXTS.ago(at_ms) == said


@pytest.mark.parametrize(
    ("view", "state", "asleep"),
    [
        (node(), "asleep", True),
        (node(state="unknown"), "asleep", True),
        (node(last_error=fault(5), last_seen_ms=6), "asleep", True),
        (node(last_error=fault(6), last_seen_ms=6), "offline", True),
        (node(last_error=fault(6)), "offline", True),
        (node(state="online", last_error=fault(6)), "online", False),
        (node(state="suspect"), "suspect", False),
        (node(state="starting", drained=True), "starting, drained", False),
        (node(drained=True), "asleep, drained", True),
    ],
)
def test_asleep_is_not_the_same_as_failed(view: NodeView, state: str, *, asleep: bool) -> None:
    assert (state_of(view), is_asleep(view)) == (state, asleep)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (node(), "mac"),
        (node(host="10.0.0.3"), "10.0.0.3"),
        (node(host="h", port=22, user="rita"), "rita@h:22"),
        (node(transport="local", host="h"), "this machine"),
    ],
)
def test_where_a_node_is(view: NodeView, said: str) -> None:
    assert where(view) == said


def test_the_devices_of_a_list_are_named_shortly() -> None:
    gpus = [{"id": "cuda:0"}, {"id": "cuda:1"}, "nonsense"]
    table = TEXTS.table(
        [node(devices={"cpu": {"offered": True}, "gpus": gpus}), node(devices={"cpu": {"offered": False}})]
    )

    assert table.splitlines()[1].endswith("  cuda:0, cuda:1, cpu")
    assert table.splitlines()[2].endswith("  -")


def test_of_a_node_that_sleeps_its_devices_are_remembered() -> None:
    known = [
        {"id": "cpu", "backend": "cpu", "name": "EPYC", "memory_bytes": 32_000_000_000},
        {"id": "gpu0", "backend": "metal", "name": "M3 Max", "memory_bytes": 36_000_000_000},
    ]
    asleep = node(known_devices=known)
    assert NodeTexts(0).table([asleep]).splitlines()[1].endswith("gpu0, cpu")
    assert "gpu0: M3 Max, 36 GB when it was last up" in NodeTexts(0).node(asleep, 200)


def test_no_nodes() -> None:
    assert TEXTS.table([]) == "no nodes yet"


@settings(max_examples=50, deadline=None)
@given(ANY, ANY, ANY, st.sampled_from(NodeState), JSON)
def test_nothing_that_a_node_sends_steers_a_terminal_or_fakes_a_line(
    name: str, text: str, hint: str, state: NodeState, devices: Any
) -> None:
    view = node(
        name=name,
        state=state,
        host=text,
        last_error=NodeFault(code=text, message=text, hint=hint, at_ms=1),
        devices=devices if isinstance(devices, dict) else None,
    )

    table = TEXTS.table([view])
    for shown in (table, TEXTS.node(view, 80), TEXTS.asleep(view)):
        assert not CONTROL & set(shown)
    assert len(table.splitlines()) == 4
    assert len(TEXTS.asleep(view).splitlines()) == 3


@settings(max_examples=30, deadline=None)  # laying out a table takes milliseconds
@given(st.dictionaries(ANY, JSON, max_size=5))
def test_any_facts_can_be_shown(facts: dict[str, Any]) -> None:
    assert not CONTROL & set(found(facts, 80))


def test_facts_are_words() -> None:
    facts = {"disk_free_bytes": 5, "ok": True, "nothing": None, "keys": ["a", "b"], "deep": {"x": [1]}, "no": False}

    assert found(facts, 80).splitlines() == [
        "disk free  5 B", "ok         yes", "keys       a, b", 'deep       {"x": [1]}', "no         no",
    ]  # fmt: skip


def test_sizes_are_scaled_and_only_numbers_are_sizes() -> None:
    facts = {"freed_bytes": 1_100_000_000, "odd_bytes": "many", "more_bytes": 10**400, "is_bytes": True}

    lines = found(facts, 1000).splitlines()

    assert lines[0] == "freed       1.1 GB"
    assert lines[1] == "odd bytes   many"
    assert lines[2].startswith("more bytes  1000")
    assert lines[3] == "is bytes    yes"


def test_findings_are_lines() -> None:
    findings = [{"about": "disk", "said": "9 GB free", "ok": True}, {"about": "rbee", "said": "not there", "ok": False}]

    assert found({"ready": False, "findings": findings}, 80).splitlines() == [
        "ready  no", "disk   9 GB free", "rbee   not there",
    ]  # fmt: skip
    assert found({"findings": []}, 80) == ""
    assert found({"findings": [{"said": "only this"}, {"said": None}]}, 80) == "findings  only this"
    assert found({"findings": [{"about": "x"}]}, 80) == 'findings  [{"about": "x"}]'


@given(st.lists(st.tuples(ANY, ANY)))
def test_columns_stand_below_each_other(rows: list[tuple[str, str]]) -> None:
    lines = columns(("A", "B"), rows, "none")

    assert lines == ["none"] if not rows else len(lines) == len(rows) + 1
    assert not {"\n", *CONTROL} & set("".join(lines))
