"""The chunk of a prompt follows the measured speed."""

import pytest

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS
from llm_worker_rbee.domain.pacing import LONGEST_STEP_S, SLOWDOWN, Pace


def steps_with(
    pace: Pace, *, base_s: float, row_s: float, generating: int = 1, waiting: int = 1, steps: int = 40
) -> list[int]:
    """Chunks of steps on a machine of that speed, after it has generated for a while."""
    for _ in range(20):
        pace.observe(generating, base_s + generating * row_s)
    chunks = []
    for _ in range(steps):
        chunks.append(pace.chunk_tokens(generating=generating, waiting=waiting))
        rows = generating + chunks[-1]
        pace.observe(rows, base_s + rows * row_s)
    return chunks


@pytest.mark.parametrize("generating", [1, 7, 32])
@pytest.mark.parametrize(("base_s", "row_s"), [(0.002, 0.0006), (0.01, 0.002), (0.0004, 0.00001), (0.0, 0.01)])
def test_no_step_takes_much_longer_than_allowed(base_s: float, row_s: float, generating: int) -> None:
    chunks = steps_with(Pace(), base_s=base_s, row_s=row_s, generating=generating)

    normal_s = base_s + generating * row_s
    allowed = (min(SLOWDOWN * normal_s, LONGEST_STEP_S) - normal_s) / row_s
    assert max(chunks) <= max(1, min(BATCH_TOKENS, allowed * 1.25 + 1))
    assert chunks[-1] >= max(1, min(BATCH_TOKENS, allowed) * 0.7 - 1), "and the prompt is read as fast as that allows"


def test_a_curve_with_a_knee_is_followed() -> None:
    """Up to 8 rows cost as much as one, as where memory is the limit; more cost in proportion."""
    pace, rows = Pace(), 0
    for _ in range(30):
        pace.observe(1, 0.01)
        rows = 1 + pace.chunk_tokens(generating=1, waiting=1)
        pace.observe(rows, 0.01 * max(1.0, rows / 8))

    assert 12 <= rows <= 20


def test_it_follows_a_machine_that_becomes_slow() -> None:
    pace = Pace()
    fast = steps_with(pace, base_s=0.01, row_s=0.0002)[-1]
    slow = steps_with(pace, base_s=0.01, row_s=0.002)[-1]

    assert fast > 4 * slow > 0


def test_the_more_wait_for_each_who_generates_the_more_is_read() -> None:
    few, many = (steps_with(Pace(), base_s=0.01, row_s=0.001, generating=4, waiting=waiting)[-1] for waiting in (1, 12))

    assert many > 2 * few


def test_alone_a_prompt_is_read_in_full_batches_unless_that_takes_too_long() -> None:
    pace = Pace()
    assert pace.chunk_tokens(generating=0, waiting=1) == BATCH_TOKENS
    pace.observe(1, 0.1)

    assert pace.chunk_tokens(generating=0, waiting=1) == int(LONGEST_STEP_S / 0.1)


def test_what_was_slow_once_does_not_stay_slow() -> None:
    pace = Pace()
    steps_with(pace, base_s=0.01, row_s=0.0002)
    for rows in (2, 6, 12, 25, 50, 100, 200):
        pace.observe(rows, 10.0)  # the machine was busy
    assert steps_with(pace, base_s=0.01, row_s=0.0002, steps=400)[-1] >= 30


def test_a_fixed_chunk_is_never_changed() -> None:
    pace = Pace(fixed_tokens=16)

    assert set(steps_with(pace, base_s=1.0, row_s=1.0)) == {16}
    assert pace.chunk_tokens(generating=0, waiting=1) == 16
