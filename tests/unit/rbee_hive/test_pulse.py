"""What silence, a load and an engine that stand still mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.workers.pulse import Pulse, after_heartbeat, after_words, engine_stall_s, fault
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerState

S = WorkerState
CLOCKS = Clocks()
BEGIN = Pulse.beginning(100.0)


def _beat(**fields: int) -> WorkerHeartbeat:
    return WorkerHeartbeat(worker_id="w", state=S.BUSY, **fields)  # type: ignore[arg-type]


def _code(state: WorkerState, pulse: Pulse, now_s: float) -> str | None:
    error = fault(state, pulse, CLOCKS, now_s)
    return error.code if error is not None else None


def test_silence_is_borne_for_a_while() -> None:
    assert _code(S.IDLE, BEGIN, 110.0) is None
    assert _code(S.IDLE, BEGIN, 110.1) == "WORKER_CRASHED"
    assert _code(S.IDLE, after_words(BEGIN, 105.0), 115.0) is None


def test_one_that_drains_is_minded_by_who_ordered_that() -> None:
    stalled = Pulse(0.0, 0.0, 0.0, answers_in_engine=1)

    assert _code(S.DRAINING, stalled, 10_000.0) is None


def test_a_load_must_go_on_however_alive_the_worker_is() -> None:
    pulse = BEGIN
    for second in range(1, 310):
        pulse = after_heartbeat(pulse, _beat(load_done=500), 100.0 + second)

    assert _code(S.LOADING, pulse, 409.0) == "LOADING_TIMEOUT"
    error = fault(S.LOADING, pulse, CLOCKS, 409.0)
    assert error is not None
    assert error.details == {"load_done_per_mille": 500}
    assert _code(S.IDLE, pulse, 409.0) is None, "what is loaded loads no longer"
    assert _code(S.LOADING, after_heartbeat(pulse, _beat(load_done=501), 409.0), 409.0) is None


def test_an_engine_with_answers_must_step_however_alive_the_worker_is() -> None:
    pulse = BEGIN
    for second in range(200):
        pulse = after_heartbeat(pulse, _beat(engine_steps=7, answers_in_engine=2), 100.0 + second)

    limit_s = engine_stall_s(CLOCKS)
    assert _code(S.BUSY, after_words(pulse, 100.0 + limit_s), 100.0 + limit_s) is None
    error = fault(S.BUSY, pulse, CLOCKS, 100.0 + limit_s + 0.1)
    assert error is not None
    assert error.code == "INFERENCE_STALLED"
    assert error.details == {"engine_steps": 7, "answers_in_engine": 2}


def test_the_worker_has_time_to_end_its_answers_itself() -> None:
    worker_looks_every_s = CLOCKS.engine_stall_s / 10

    assert engine_stall_s(CLOCKS) > CLOCKS.engine_stall_s + worker_looks_every_s + CLOCKS.heartbeat_s


@pytest.mark.parametrize("fields", [{"engine_steps": 7}, {"engine_steps": 7, "answers_in_engine": 0}, {}])
def test_an_engine_without_answers_stands_still_by_right(fields: dict[str, int]) -> None:
    pulse = BEGIN
    for second in range(200):
        pulse = after_heartbeat(pulse, _beat(**fields), 100.0 + second)

    assert _code(S.IDLE, pulse, 299.0) is None


def test_the_first_answer_after_a_long_rest_has_its_full_time() -> None:
    rested = after_heartbeat(BEGIN, _beat(engine_steps=7), 5000.0)
    begun = after_heartbeat(rested, _beat(engine_steps=7, answers_in_engine=1), 5002.0)

    assert _code(S.BUSY, begun, 5002.0) is None
    assert begun.stepped_at_s == 5000.0


@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.integers(-(2**70), 2**70), st.integers(-5, 5), st.integers(0, 1000)), max_size=30
    )
)
def test_whatever_a_worker_says_the_moments_never_run_ahead(beats: list[tuple[float, int, int, int]]) -> None:
    pulse, now_s = BEGIN, 100.0
    for after_s, steps, answers, load in beats:
        now_s += after_s
        pulse = after_heartbeat(pulse, _beat(engine_steps=steps, answers_in_engine=answers, load_done=load), now_s)
        assert max(pulse.heard_at_s, pulse.loaded_at_s, pulse.stepped_at_s) <= now_s
        fault(S.BUSY, pulse, CLOCKS, now_s)
