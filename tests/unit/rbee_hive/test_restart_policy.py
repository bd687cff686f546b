"""Which dead worker comes back, and when."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.workers.restart_policy import MAX_RESTARTS, Death, restart_delay_s, restarts_in_a_row
from rbee_shared.errors import (
    ERRORS_BY_CODE,
    InferenceStalledError,
    InternalError,
    ModelInvalidError,
    RbeeError,
    WorkerCrashedError,
)

_MIDDLE = 0.5
_MAY_COME_BACK = {"WORKER_CRASHED", "INFERENCE_STALLED", "INTERNAL"}
CRASH = WorkerCrashedError("killed by SIGSEGV")


def _delay_s(death: Death, restarts: int = 0, chance: float = _MIDDLE) -> float | None:
    return restart_delay_s(death, restarts, first_s=1.0, chance=chance)


def test_a_worker_that_crashes_again_and_again_waits_longer_each_time_and_then_stays_dead() -> None:
    death = Death(CRASH, -signal.SIGSEGV, served_s=3.0)

    assert [_delay_s(death, restarts) for restarts in range(6)] == [1.0, 4.0, 16.0, None, None, None]


@given(st.floats(0, 1), st.integers(0, MAX_RESTARTS - 1))
def test_a_delay_differs_by_a_quarter_at_most(chance: float, restarts: int) -> None:
    delay_s = _delay_s(Death(CRASH, -9, None), restarts, chance)

    assert delay_s is not None
    assert 0.75 * 4**restarts <= delay_s <= 1.25 * 4**restarts


def test_the_whole_spread_is_used() -> None:
    death = Death(CRASH, -9, None)

    assert (_delay_s(death, 0, 0.0), _delay_s(death, 0, 1.0)) == (0.75, 1.25)


def test_the_first_delay_is_a_setting() -> None:
    assert restart_delay_s(Death(CRASH, -9, None), 2, first_s=0.1, chance=_MIDDLE) == pytest.approx(1.6)


@pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
def test_only_what_may_go_better_the_next_time_is_tried_again(code: str) -> None:
    """The file, the arguments, the memory, the ports and the disk are the same the next time."""
    death = Death(ERRORS_BY_CODE[code]("no"), 1, served_s=5.0)

    assert (_delay_s(death) is not None) == (code in _MAY_COME_BACK)


@pytest.mark.parametrize(
    ("error", "served_s", "comes_back"),
    [
        pytest.param(CRASH, None, True, id="a kill while loading says nothing of the model"),
        pytest.param(InferenceStalledError("60 s"), 100.0, True, id="a stalled engine"),
        pytest.param(InternalError("the engine died"), 100.0, True, id="an engine that died at work"),
        pytest.param(InternalError("the engine died"), None, False, id="one that died before it ever served"),
        pytest.param(ModelInvalidError("aborts"), None, False, id="a model that aborts in the loader"),
    ],
)
def test_what_comes_back(error: RbeeError, served_s: float | None, comes_back: bool) -> None:
    assert (_delay_s(Death(error, -6, served_s)) is not None) == comes_back


@pytest.mark.parametrize("returncode", [0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP])
def test_who_was_told_to_go_by_hand_is_not_brought_back(returncode: int) -> None:
    assert _delay_s(Death(CRASH, returncode, served_s=5.0)) is None


def test_an_exit_that_was_ordered_is_no_crash() -> None:
    assert _delay_s(Death(CRASH, -9, served_s=5.0, ordered=True)) is None


@pytest.mark.parametrize(
    ("before", "served_s", "counted"),
    [(3, 600.0, 0), (3, 599.9, 3), (3, None, 3), (0, 10_000.0, 0), (0, None, 0), (2, 0.0, 2)],
)
def test_ten_minutes_of_service_are_forgiveness(before: int, served_s: float | None, counted: int) -> None:
    assert restarts_in_a_row(before, served_s, reset_s=600.0) == counted
