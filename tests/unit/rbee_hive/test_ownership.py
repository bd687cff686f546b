"""Whose a hive is: one queen under changing addresses keeps it, and no other gets it meanwhile."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.ownership import Ownership, Queen, answered, asks_still, first_owner, given_up, taken_by
from rbee_shared.errors import HiveOwnedError, RbeeError, StaleEpochError

HIVE = {"name": "mac", "hive_url": "http://127.0.0.1:9200", "pid": 77, "user": "ann"}
AT_7001 = Queen("http://127.0.0.1:7001", "queen-a", 3, "token-1")
AT_7002 = replace(AT_7001, url="http://127.0.0.1:7002", token="token-2")
OTHER = Queen("http://127.0.0.1:7003", "queen-b", 99)
STARTED = first_owner(AT_7001, started_us=True)


def test_a_hive_that_waits_for_a_queen_is_anybodys() -> None:
    for waiting in (Ownership(), first_owner(Queen("http://q"), started_us=False), given_up(Queen("http://q"))):
        taken = taken_by(waiting, AT_7001, HIVE)

        assert (taken.queen, taken.adopted, taken.orders_as, taken.epoch) == (AT_7001, True, "queen-a", 3)


def test_its_queen_may_come_back_from_anywhere() -> None:
    again = taken_by(replace(STARTED, cut_off=True), AT_7002, HIVE)

    assert (again.queen, again.adopted, again.cut_off) == (AT_7002, True, False)
    assert again.orders_as == STARTED.orders_as, "the workers that she ordered stay hers"


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_later_start_of_its_queen_takes_over(epoch: int) -> None:
    assert taken_by(STARTED, replace(AT_7002, epoch=epoch), HIVE).epoch == epoch


def test_an_earlier_start_of_its_queen_does_not() -> None:
    with pytest.raises(StaleEpochError):
        taken_by(STARTED, replace(AT_7002, epoch=2), HIVE)


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("url", [OTHER.url, AT_7001.url], ids=["elsewhere", "at her address"])
def test_another_queen_is_refused_with_the_owner_named(url: str, cut_off: bool) -> None:
    with pytest.raises(HiveOwnedError) as refusal:
        taken_by(replace(STARTED, cut_off=cut_off), replace(OTHER, url=url), HIVE)

    assert refusal.value.details == {
        "queen_url": AT_7001.url, "queen_id": "queen-a", "hive_url": HIVE["hive_url"], "pid": 77, "user": "ann"
    }  # fmt: skip
    assert "mac" in refusal.value.message
    assert "token" not in str(refusal.value.body())


def test_without_an_id_the_address_stands_for_the_queen() -> None:
    nameless = first_owner(Queen("http://q:1", epoch=1), started_us=True)

    assert taken_by(nameless, Queen("http://q:1", epoch=2), HIVE).epoch == 2
    with pytest.raises(HiveOwnedError):
        taken_by(nameless, Queen("http://q:2", epoch=2), HIVE)


def test_an_id_that_is_told_later_is_kept_and_orphans_no_worker() -> None:
    nameless = first_owner(Queen("http://q:1", epoch=1), started_us=True)

    named = taken_by(nameless, Queen("http://q:1", "queen-a", 1), HIVE)
    moved = taken_by(named, AT_7002, HIVE)
    forgetful = taken_by(moved, Queen(AT_7002.url, epoch=5), HIVE)

    assert {each.orders_as for each in (named, moved, forgetful)} == {"http://q:1"}
    assert forgetful.queen == Queen(AT_7002.url, "queen-a", 5), "and her token is the cluster's again"


# answers


def test_an_answer_adopts_or_does_not_and_never_takes_an_epoch_back() -> None:
    announced = first_owner(Queen("http://q"), started_us=False)

    assert answered(announced, announced, epoch=4, adopts=False) == replace(announced, queen=Queen("http://q", epoch=4))
    assert answered(announced, announced, epoch=4, adopts=True).adopted
    assert answered(STARTED, STARTED, epoch=1, adopts=False) == STARTED


def test_who_she_is_may_be_told_later_and_changes_no_more() -> None:
    announced = first_owner(Queen("http://q"), started_us=False)
    known = answered(announced, announced, epoch=4, adopts=True, queen_id="queen-1")
    assert known.queen == Queen("http://q", queen_id="queen-1", epoch=4)
    assert answered(known, known, epoch=4, adopts=True, queen_id="queen-2").queen == known.queen
    again = taken_by(known, Queen("http://elsewhere", queen_id="queen-1", epoch=5), HIVE)
    assert again.orders_as == known.orders_as


def test_only_an_answer_to_what_was_sent_behind_the_loss_says_that_she_is_back() -> None:
    lost = replace(STARTED, cut_off=True)

    assert answered(lost, STARTED, epoch=3, adopts=True).cut_off
    assert not answered(lost, lost, epoch=3, adopts=True).cut_off


@pytest.mark.parametrize(
    ("now", "counts"),
    [
        (STARTED, True),
        (replace(STARTED, cut_off=True), True),
        (replace(STARTED, queen=AT_7002), False),
        (replace(STARTED, queen=OTHER), False),
        (replace(STARTED, queen=replace(OTHER, url=AT_7001.url)), False),
        (Ownership(), False),
    ],
)
def test_whose_answers_count(now: Ownership, counts: bool) -> None:
    assert asks_still(now, STARTED) is counts
    assert not asks_still(now, Ownership())


def test_a_queens_token_is_not_in_what_is_logged() -> None:
    assert "token-1" not in repr(STARTED)


# races


_QUEENS = st.builds(
    Queen,
    st.sampled_from(["http://a:1", "http://a:2", "http://b:1"]),
    st.sampled_from([None, "queen-a", "queen-b"]),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(st.sampled_from(["adopt", "answer", "cut", "late answer"]), _QUEENS), max_size=30))
def test_whatever_comes_in_whatever_order_a_hive_never_changes_hands_nor_goes_back(
    moves: list[tuple[str, Queen]],
) -> None:
    now = asked = Ownership()
    for what, queen in moves:
        before = now
        if what == "adopt":
            try:
                now = taken_by(before, queen, HIVE)
            except RbeeError:
                assert before.adopted, "only an owner keeps another out"
                assert before is now
                continue
            assert not before.adopted or (before.queen is not None and before.queen.is_same(queen))
        elif what == "cut":
            now = replace(now, cut_off=True)
        else:
            asked = now if what == "answer" else asked
            if asks_still(now, asked):
                now = answered(now, asked, epoch=queen.epoch or 0, adopts=False)
        if before.adopted:
            assert now.adopted
            assert now.orders_as == before.orders_as
            assert (now.epoch or 0) >= (before.epoch or 0)


def test_of_two_queens_that_race_one_has_the_hive_a_thousand_times() -> None:
    dice = random.Random(5)
    for _ in range(1_000):
        first, second = replace(AT_7001, epoch=None), OTHER
        now, refused = Ownership(), set()
        orders = [first, second, replace(first, url="http://127.0.0.1:7009"), second, first]
        dice.shuffle(orders)
        for queen in orders:
            try:
                now = taken_by(now, queen, HIVE)
            except HiveOwnedError:
                refused.add(queen.queen_id)
        assert now.queen is not None
        assert now.queen.queen_id == orders[0].queen_id, "who came first"
        assert refused == {"queen-a", "queen-b"} - {now.queen.queen_id}
