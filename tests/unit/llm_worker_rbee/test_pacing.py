"""The chunk of a prompt follows the measured speed."""

import pytest

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS
from llm_worker_rbee.domain.pacing import LONGEST_STEP_S, SLOWDOWN, Pace


def steps_with(pace: Pace, *, generate_s: float, token_s: float, steps: int = 30) -> list[tuple[int, float]]:
    """Chunks and times of steps on a machine of that speed, while somebody generates."""
    for _ in range(20):
        pace.observe(generated=1, prefilled=0, seconds=generate_s)
    found = []
    for _ in range(steps):
        chunk = pace.chunk_tokens(others_generate=True)
        seconds = generate_s + chunk * token_s
        pace.observe(generated=1, prefilled=chunk, seconds=seconds)
        found.append((chunk, seconds))
    return found


@pytest.mark.parametrize(("generate_s", "token_s"), [(0.002, 0.0006), (0.016, 0.008), (0.0004, 0.00001), (0.05, 0.2)])
def test_no_step_takes_much_longer_than_allowed(generate_s: float, token_s: float) -> None:
    found = steps_with(Pace(), generate_s=generate_s, token_s=token_s)

    one_token_s = generate_s + token_s  # less than one token is none
    assert max(seconds for _, seconds in found) <= max(SLOWDOWN * generate_s, one_token_s) * 1.01
    best = max(1, min(BATCH_TOKENS, int((SLOWDOWN - 1) * generate_s / token_s)))
    assert found[-1][0] >= best * 0.8, "and the prompt is read as fast as that allows"


def test_it_follows_a_machine_that_becomes_slow() -> None:
    pace = Pace()
    fast = steps_with(pace, generate_s=0.01, token_s=0.0002)[-1][0]
    slow = steps_with(pace, generate_s=0.01, token_s=0.002)[-1][0]

    assert fast > 8 * slow / 2 > 0


def test_alone_a_prompt_is_read_in_full_batches_unless_that_takes_too_long() -> None:
    pace = Pace()
    assert pace.chunk_tokens(others_generate=False) == BATCH_TOKENS
    pace.observe(generated=0, prefilled=BATCH_TOKENS, seconds=BATCH_TOKENS * 0.1)

    assert pace.chunk_tokens(others_generate=False) == int(LONGEST_STEP_S / 0.1)


def test_a_fixed_chunk_is_never_changed() -> None:
    pace = Pace(fixed_tokens=16)

    assert {chunk for chunk, _ in steps_with(pace, generate_s=0.01, token_s=1.0)} == {16}
    assert pace.chunk_tokens(others_generate=False) == 16
