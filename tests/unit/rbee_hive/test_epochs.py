"""Whose orders a hive takes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.epochs import parse_epoch, require_current_epoch
from rbee_shared.errors import InvalidRequestError, StaleEpochError


@pytest.mark.parametrize(("sent", "current"), [(None, None), (None, 5), (5, None), (5, 5), (6, 5), (0, 0)])
def test_who_may_order(sent: int | None, current: int | None) -> None:
    require_current_epoch(sent, current)


@given(st.integers(0, 10**17), st.integers(1, 10**9))
def test_an_older_start_of_the_queen_is_refused_with_both_numbers(sent: int, younger: int) -> None:
    with pytest.raises(StaleEpochError) as refusal:
        require_current_epoch(sent, sent + younger)

    assert refusal.value.details == {"sent": sent, "current": sent + younger}


@pytest.mark.parametrize(("text", "epoch"), [(None, None), ("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_what_a_header_means(text: str | None, epoch: int | None) -> None:
    assert parse_epoch(text) == epoch


@pytest.mark.parametrize(
    "text", ["", " 1", "-1", "1.0", "x", "\uff11", "²", "9" * 19, "1e3", "0x1", "\x00", "1" * 10_000]
)
def test_what_is_no_epoch(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_epoch(text)

    assert len(refusal.value.message) < 200


@given(st.text(max_size=30))
def test_any_header_is_an_epoch_or_refused(text: str) -> None:
    with suppress(InvalidRequestError):
        assert (parse_epoch(text) or 0) >= 0
