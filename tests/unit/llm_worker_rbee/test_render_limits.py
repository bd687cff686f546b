"""What a rendering may make: texts, containers, all of it together, and for how long."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.render_limits import (
    MAX_INT_BITS,
    MAX_ITEMS,
    MAX_MADE,
    MAX_PRINTED,
    MAX_SIZE,
    Meter,
    TooMuchError,
    weigh,
)

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="ascii", categories=["L"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def meter() -> Meter:
    return Meter(lambda: 0.0, 1.0)


def test_time_runs_out_at_the_limit() -> None:
    now_s = 5.0
    watch = Meter(lambda: now_s, 2.0)
    now_s = 6.9
    watch.tick()
    now_s = 7.0

    with pytest.raises(TooMuchError, match="longer than 2 s"):
        watch.tick()


@given(DATA)
def test_the_weight_bounds_the_text_and_data_is_kept_as_it_is(data: Any) -> None:
    kept = meter().keep_all(data)

    assert repr(kept) == repr(data)
    assert weigh(kept) == weigh(data)
    assert 2 * weigh(data) >= len(repr(data))


def test_tuples_become_lists_and_stay_tuples_one_by_one() -> None:
    assert meter().keep_all((1, (2,))) == [1, [2]]
    assert meter().keep((1, 2)) == (1, 2)


def test_a_list_that_holds_another_many_times_is_as_heavy_as_if_it_held_copies() -> None:
    watch = meter()
    data = watch.keep(["x" * 100])
    for _ in range(13):
        data = watch.keep([data, data])

    assert weigh(data) > 2**13 * 100
    data = watch.keep([data])
    with pytest.raises(TooMuchError):
        watch.keep([data, data])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda watch: watch.keep("x" * (MAX_SIZE + 1)), id="a text"),
        pytest.param(lambda watch: watch.keep(["x"] * (MAX_ITEMS + 1)), id="a list"),
        pytest.param(lambda watch: watch.keep_all({"a": {"b": "x" * MAX_SIZE}}), id="a text in a dictionary"),
        pytest.param(lambda watch: watch.keep({"a": "x" * MAX_SIZE, "b": 1}), id="a dictionary"),
        pytest.param(lambda watch: watch.room(MAX_SIZE + 1), id="room for a text"),
        pytest.param(lambda watch: watch.items(MAX_ITEMS + 1), id="room for a list"),
        pytest.param(lambda watch: watch.keep(1 << MAX_INT_BITS), id="a number"),
        pytest.param(lambda watch: watch.text(["x" * MAX_SIZE]), id="the text of a list"),
        pytest.param(lambda watch: list(watch.each(range(MAX_ITEMS + 2))), id="a walk"),
        pytest.param(lambda watch: [watch.printed(MAX_PRINTED), watch.printed(1)], id="printed"),
        pytest.param(
            lambda watch: [watch.keep("x" * MAX_SIZE) for _ in range(MAX_MADE // MAX_SIZE + 1)], id="all together"
        ),
    ],
)
def test_what_is_too_much(make: Callable[[Meter], object]) -> None:
    with pytest.raises(TooMuchError):
        make(meter())


@pytest.mark.parametrize(
    ("make", "made"),
    [
        pytest.param(lambda watch: watch.keep("x" * MAX_SIZE), "x" * MAX_SIZE, id="a text"),
        pytest.param(lambda watch: watch.keep(2**MAX_INT_BITS - 1), 2**MAX_INT_BITS - 1, id="a number"),
        pytest.param(lambda watch: len(watch.keep([0] * 100_000)), 100_000, id="a list"),
        pytest.param(lambda watch: watch.text([1, None]), "[1, None]", id="the text of a list"),
        pytest.param(lambda watch: list(watch.each("abc")), ["a", "b", "c"], id="a walk"),
        pytest.param(lambda watch: watch.printed(MAX_PRINTED), None, id="printed"),
    ],
)
def test_what_is_not(make: Callable[[Meter], object], made: object) -> None:
    assert make(meter()) == made
