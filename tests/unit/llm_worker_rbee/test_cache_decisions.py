"""What is in the cache: how much of it is counted, who takes which slot, how large it is unless somebody says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_worker_rbee.domain.context_size import default_n_ctx, default_slots, n_ctx_of_an_answer
from llm_worker_rbee.domain.kv_ledger import KvLedger
from llm_worker_rbee.domain.prefix_cache import Choice, Slot, choose, common_prefix

SEQUENCES = 4
ids = st.integers(0, SEQUENCES - 1)


class CountedCells(RuleBasedStateMachine):
    """The ledger beside the plainest model of a cache: a list of cells, each with the set of those who use it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = KvLedger(1000)
        self.cells: list[set[int]] = []
        self.of: dict[int, list[set[int]]] = {seq_id: [] for seq_id in range(SEQUENCES)}

    @rule(seq_id=ids, tokens=st.integers(1, 8))
    def extend(self, seq_id: int, tokens: int) -> None:
        new = [{seq_id} for _ in range(tokens)]
        self.of[seq_id] += new
        self.cells += new
        self.ledger.extend(seq_id, tokens)

    @rule(seq_id=ids, tokens=st.integers(0, 12))
    def trim(self, seq_id: int, tokens: int) -> None:
        for cell in self.of[seq_id][tokens:]:
            cell.discard(seq_id)
        del self.of[seq_id][tokens:]
        self.ledger.trim(seq_id, tokens)

    @rule(source=ids, seq_id=ids, tokens=st.integers(1, 12))
    def share(self, source: int, seq_id: int, tokens: int) -> None:
        if source == seq_id or tokens > len(self.of[source]):
            return
        self.trim(seq_id, 0)
        for cell in self.of[source][:tokens]:
            cell.add(seq_id)
            self.of[seq_id].append(cell)
        self.ledger.share(source, seq_id, tokens)

    @invariant()
    def the_same_is_counted(self) -> None:
        used = sum(1 for cell in self.cells if cell)
        assert (self.ledger.used, self.ledger.free) == (used, 1000 - used)
        assert [self.ledger.held(seq_id) for seq_id in range(SEQUENCES)] == [len(self.of[i]) for i in range(SEQUENCES)]


TestCountedCells = CountedCells.TestCase


def slot(seq_id: int, tokens: str = "", *, running: bool = False, used_at: int = 0) -> Slot:
    return Slot(seq_id, tuple(map(ord, tokens)), running, used_at)


@pytest.mark.parametrize(
    ("slots", "flags", "expected"),
    [
        pytest.param([slot(0), slot(1)], {}, Choice(0, 0, 0), id="nothing there: the lowest"),
        pytest.param([slot(0, "hello you"), slot(1)], {}, Choice(0, 0, 6), id="the longest common beginning"),
        pytest.param([slot(0, "hello world"), slot(1)], {}, Choice(0, 0, 10), id="one token is left to decode"),
        pytest.param([slot(0, "hello" * 9), slot(1)], {}, Choice(1, 0, 5), id="most of it would be lost: shared"),
        pytest.param([slot(0, "hello" * 9)], {}, Choice(0, 0, 5), id="there is no other: taken over"),
        pytest.param(
            [slot(0, "hello you", running=True), slot(1)], {}, Choice(1, 0, 6), id="of a running one it is shared"
        ),
        pytest.param(
            [slot(0, "hello wo", running=True), slot(1, "hello")],
            {},
            Choice(1, 0, 8),
            id="the longer one, though it runs",
        ),
        pytest.param(
            [slot(0, "hello", running=True), slot(1, "hello")], {}, Choice(1, 1, 5), id="of two alike the idle one"
        ),
        pytest.param(
            [slot(0, "abc", used_at=5), slot(1, "xyz", used_at=3)],
            {},
            Choice(1, 1, 0),
            id="else the least recently used",
        ),
        pytest.param([slot(0, "abc", used_at=1), slot(1)], {}, Choice(1, 1, 0), id="or rather an empty one"),
        pytest.param(
            [slot(0, "hello wo", running=True), slot(1, "hell")],
            {"can_share": False},
            Choice(1, 1, 4),
            id="without sharing only idle ones count",
        ),
        pytest.param(
            [slot(0, "hello" * 9), slot(1)],
            {"can_share": False},
            Choice(1, 1, 0),
            id="a long one is kept if there is room",
        ),
        pytest.param(
            [slot(0, "hello" * 9), slot(1, "x")], {"can_share": False}, Choice(0, 0, 5), id="and used if there is not"
        ),
        pytest.param([slot(0, "hello you")], {"can_trim": False}, Choice(0, 0, 0), id="its end cannot be removed"),
        pytest.param([slot(0, "hello ")], {"can_trim": False}, Choice(0, 0, 6), id="nothing need be removed"),
    ],
)
def test_choose(slots: list[Slot], flags: dict[str, Any], expected: Choice) -> None:
    flags = {"can_share": True, "can_trim": True, **flags}
    assert choose(tuple(map(ord, "hello world")), slots, **flags) == expected


@given(st.lists(st.integers(0, 2)).map(tuple), st.lists(st.integers(0, 2)).map(tuple))
def test_common_prefix(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    length = common_prefix(one, other)

    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@pytest.mark.parametrize(
    ("slots", "token_bytes", "free_bytes", "expected"),
    [
        pytest.param(4, 1000, 10**9, 4 * 4096, id="what each would like"),
        pytest.param(16, 100_000, 2 * 10**9, 4864, id="a quarter of what is free"),
        pytest.param(4, 100_000, 10**6, 4096, id="enough for one at least"),
        pytest.param(4, 0, 0, 4 * 4096, id="a cache that does not grow"),
    ],
)
def test_default_n_ctx(slots: int, token_bytes: int, free_bytes: int, expected: int) -> None:
    assert default_n_ctx(n_ctx_train=8192, slots=slots, token_bytes=token_bytes, free_bytes=free_bytes) == expected


def test_a_small_model_gets_no_more_context_than_it_was_trained_for() -> None:
    assert default_n_ctx(n_ctx_train=512, slots=2, token_bytes=1, free_bytes=10**9) == 1024
    assert n_ctx_of_an_answer(n_ctx_seq=8192, n_ctx_train=512) == 512
    assert n_ctx_of_an_answer(n_ctx_seq=256, n_ctx_train=512) == 256
    assert n_ctx_of_an_answer(n_ctx_seq=256, n_ctx_train=0) == 256


def test_default_slots() -> None:
    assert (default_slots("cpu"), default_slots("cuda"), default_slots("metal")) == (4, 16, 16)
