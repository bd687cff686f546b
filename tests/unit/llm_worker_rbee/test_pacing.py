"""The chunk of a prompt follows the measured speed."""

import itertools
from collections.abc import Callable

import pytest

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS
from llm_worker_rbee.domain.pacing import LONGEST_STEP_S, SLOWDOWN, Pace

Cost = Callable[[int, int], float]
"""Seconds of a step, by its rows and its number."""


def read(
    pace: Pace, cost: Cost, *, generating: int = 1, waiting: int = 1, steps: int = 60
) -> tuple[list[int], list[float]]:
    """Chunks of a long prompt and seconds of their steps, after `generating` sequences have generated for a while."""
    for _ in range(20):
        pace.observe(generated=generating, prefilled=0, seconds=cost(generating, 0))
    chunks, times = [], []
    for step in range(steps):
        chunks.append(pace.chunk_tokens(generating=generating, waiting=waiting))
        times.append(cost(generating + chunks[-1], step))
        pace.observe(generated=generating, prefilled=chunks[-1], seconds=times[-1])
    return chunks, times


def linear(base_s: float, row_s: float) -> Cost:
    return lambda rows, _: base_s + rows * row_s


@pytest.mark.parametrize("generating", [1, 7, 32])
@pytest.mark.parametrize(("base_s", "row_s"), [(0.002, 0.0006), (0.01, 0.002), (0.0004, 0.00001), (0.0, 0.01)])
def test_no_step_takes_much_longer_than_allowed(base_s: float, row_s: float, generating: int) -> None:
    chunks, times = read(Pace(), linear(base_s, row_s), generating=generating)
    normal_s = base_s + generating * row_s
    allowed = (min(SLOWDOWN * normal_s, LONGEST_STEP_S) - normal_s) / row_s

    assert max(times) <= max(3 * normal_s, normal_s + row_s)
    assert max(chunks[-20:]) >= max(1, min(BATCH_TOKENS, allowed) * 0.7 - 1), "and is read as fast as that allows"


def test_a_curve_with_a_knee_is_followed() -> None:
    """Up to 8 rows cost as much as one, as where memory is the limit; more cost in proportion."""
    chunks, times = read(Pace(), lambda rows, _: 0.01 * max(1.0, rows / 8))

    assert 12 <= max(chunks[-20:]) <= 20
    assert max(times) <= 0.03


def test_a_prompt_whose_tokens_cost_ever_more_is_read_in_ever_smaller_chunks() -> None:
    """Deep in a long prompt attention is what costs; who generates beside it has short contexts."""
    chunks, times = read(
        Pace(), lambda rows, step: 0.007 + (rows - 4) * (0.0005 + step * 0.000008), generating=4, steps=1000
    )

    assert max(chunks[:40]) > 8
    assert chunks[-1] <= 2
    assert max(times) <= 3 * 0.007


def test_what_is_normal_is_looked_at_again_while_a_long_prompt_is_read() -> None:
    pace = Pace()
    chunks, _ = read(pace, linear(0.01, 0.001), generating=4, steps=200)

    assert 4 <= chunks.count(0) <= 200 // 32
    assert not any(one == other == 0 for one, other in itertools.pairwise(chunks))
    slower = [pace.chunk_tokens(generating=4, waiting=1)]
    for _ in range(400):  # everything costs four times as much by now
        pace.observe(generated=4, prefilled=slower[-1], seconds=0.04 + (4 + slower[-1]) * 0.004)
        slower.append(pace.chunk_tokens(generating=4, waiting=1))
    assert max(slower[-40:]) > 5, "what is normal now allows it"


def test_what_was_slow_once_does_not_stay_slow() -> None:
    pace = Pace()
    before = max(read(pace, linear(0.01, 0.0002))[0][-20:])
    for rows in (2, 6, 12, 25, 50, 100, 200):
        pace.observe(generated=1, prefilled=rows - 1, seconds=10.0)  # the machine was busy

    assert max(read(pace, linear(0.01, 0.0002), steps=800)[0][-40:]) >= before * 0.7


def test_the_more_wait_for_each_who_generates_the_more_is_read() -> None:
    few, many = (max(read(Pace(), linear(0.01, 0.001), generating=4, waiting=n)[0][-20:]) for n in (1, 12))

    assert many > 2 * few


def test_many_prompts_beside_few_answers_are_read_at_once() -> None:
    assert read(Pace(), linear(0.002, 0.0005), generating=1, waiting=31, steps=3)[0][0] >= 15


def test_alone_a_prompt_is_read_in_full_batches_unless_that_takes_too_long() -> None:
    pace = Pace()
    assert pace.chunk_tokens(generating=0, waiting=1) == BATCH_TOKENS
    pace.observe(generated=0, prefilled=1, seconds=0.1)

    assert pace.chunk_tokens(generating=0, waiting=1) == int(LONGEST_STEP_S / 0.1)


def test_with_nobody_waiting_nothing_is_read() -> None:
    assert Pace().chunk_tokens(generating=3, waiting=0) == 0


def test_a_fixed_chunk_is_never_changed() -> None:
    pace = Pace(fixed_tokens=16)

    assert set(read(pace, linear(1.0, 1.0))[0]) == {16}
    assert pace.chunk_tokens(generating=0, waiting=1) == 16
