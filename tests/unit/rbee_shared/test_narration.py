"""Lines are made once, read from anybody, and printed safely."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared.narration import ACTORS, LEVELS, Narration, Narrator, correlation_id, render

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = ["actor", "action", "human", "cute", "level", "node", "at_ms", "correlation_id", "details"]


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_whatever_a_peer_sends_becomes_a_line(data: dict[str, Any]) -> None:
    narration = Narration.from_dict(data)
    assert narration.actor in ACTORS
    assert narration.level in LEVELS
    for fancy in (True, False):
        line = render(narration, fancy=fancy)
        assert "\n" not in line
        assert "\x1b" not in line
    json.dumps(narration.to_dict())


@pytest.mark.parametrize(
    "data", [{}, {"actor": []}, {"level": {}}, {"human": None}, {"details": [1]}, {"at_ms": 1e300}]
)
def test_garbage_in_a_field_is_replaced(data: dict[str, Any]) -> None:
    assert Narration.from_dict(data).details == {}


def test_a_line_survives_the_wire() -> None:
    line = Narration("hive", "wake", "waking", cute="🐝", node="mac", at_ms=5, correlation_id="req-1", details={"a": 1})
    assert Narration.from_dict(json.loads(json.dumps(line.to_dict()))) == line
    assert line.on_node("other") is line
    assert Narration("hive", "a", "b").on_node("mac").node == "mac"


@pytest.mark.parametrize(
    ("level", "cute", "plain", "fancy"),
    [
        ("info", "🐝", "hive: up", "[hive] 🐝 up"),
        ("info", None, "hive: up", "[hive] up"),
        ("warning", None, "hive: warning: up", "[hive] warning: up"),
        ("error", "💥", "hive: error: up", "[hive] 💥 error: up"),
    ],
)
def test_render(level: str, cute: str | None, plain: str, fancy: str) -> None:
    narration = Narration("hive", "say", "up", cute=cute, level=level)
    assert render(narration, fancy=False) == plain
    assert render(narration, fancy=True) == fancy


def test_a_narrator_redacts_and_knows_whose_request_it_is() -> None:
    said: list[Narration] = []
    narrator = Narrator("queen", said.append, node="here")
    current = correlation_id.set("req-context")
    try:
        narrator.tell("a", "token=abcdefghijklmnopqrst\n\x1b[31mred", count=3)
        narrator.speaking_as("hive").tell("b", "text", correlation="req-mine")
    finally:
        correlation_id.reset(current)
    narrator.tell("c", "text")

    assert "abcdefghij" not in said[0].human
    assert "\x1b" not in said[0].human
    assert said[0].details == {"count": 3}
    assert [each.correlation_id for each in said] == ["req-context", "req-mine", None]
    assert [each.actor for each in said] == ["queen", "hive", "queen"]
    assert {each.node for each in said} == {"here"}
    assert all(each.at_ms > 1_600_000_000_000 for each in said)
