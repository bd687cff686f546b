"""The step plan: who decodes, how much of a prompt is read, who waits, who gives way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.batch_plan import (
    BATCH_TOKENS,
    GROWTH_TOKENS,
    Overflow,
    Preempt,
    Running,
    Step,
    plan,
    wanted_room,
)


def generating(key: int, held: int = 10) -> Running:
    return Running(key, key, held, 1, begun=True)


def prompt(key: int, pending: int, held: int = 0) -> Running:
    return Running(key, key, held, pending, begun=held > 0)


def sharing(key: int, held: int, pending: int) -> Running:
    """It has not been in a step, and begins with what another sequence holds."""
    return Running(key, key, held, pending, begun=False)


@pytest.mark.parametrize(
    ("running", "room", "chunk", "expected"),
    [
        pytest.param([generating(1)], 100, 8, Step(((1, 1),)), id="one that generates"),
        pytest.param([prompt(1, 20)], 100, 8, Step(((1, 8),)), id="a prompt in chunks"),
        pytest.param([prompt(1, 1)], 100, 8, Step(((1, 1),)), id="a prompt of one token"),
        pytest.param(
            [prompt(3, 50), generating(1), generating(2)],
            500,
            8,
            Step(((1, 1), (2, 1), (3, 8))),
            id="who generates comes first",
        ),
        pytest.param([prompt(2, 5, 3), prompt(1, 5, 3)], 100, 8, Step(((1, 5), (2, 3))), id="the older prompt first"),
        pytest.param([prompt(1, 8), prompt(2, 8)], 500, 8, Step(((1, 8),)), id="the chunk is used up"),
        pytest.param(
            [generating(1), prompt(2, 50)],
            50 + GROWTH_TOKENS,
            99,
            Step(((1, 1),)),
            id="no room for all of it: it waits",
        ),
        pytest.param(
            [generating(1), prompt(2, 50)],
            51 + 2 * GROWTH_TOKENS,
            99,
            Step(((1, 1), (2, 50))),
            id="room for all of it and to grow",
        ),
        pytest.param([prompt(1, 50)], 50, 99, Step(((1, 50),)), id="alone it may fill the cache"),
        pytest.param(
            [generating(1), prompt(2, 400), prompt(3, 2)], 300, 99, Step(((1, 1),)), id="nobody overtakes who waits"
        ),
        pytest.param(
            [generating(1), prompt(2, 400), sharing(3, 90, 10)],
            300,
            99,
            Step(((1, 1),)),
            id="nor who begins with what is in the cache",
        ),
        pytest.param(
            [prompt(1, 90, 10), prompt(2, 60)], 100, 20, Step(((1, 20),)), id="what has begun has its rest reserved"
        ),
        pytest.param([generating(1), generating(2)], 1, 8, Preempt(2), id="the youngest gives way"),
        pytest.param([generating(1), prompt(2, 9, 30)], 0, 8, Preempt(2), id="also one that still reads its prompt"),
        pytest.param([generating(2), prompt(1, 9)], 0, 8, Overflow(2), id="nobody else holds cells: it is full"),
        pytest.param(
            [prompt(1, 9, 9), prompt(2, 9, 9)], 0, 8, Preempt(2), id="two half prompts do not block each other"
        ),
        pytest.param([generating(1)], 0, 8, Overflow(1), id="alone and full"),
        pytest.param([prompt(1, 200)], 100, 8, Overflow(1), id="a prompt that can never fit"),
    ],
)
def test_plan(running: list[Running], room: int, chunk: int, expected: Step | Preempt | Overflow) -> None:
    assert plan(running, room=room, chunk_tokens=chunk) == expected


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Running], int]:
    """Running sequences that fit into a cache, and the room that is left."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=6))
    running = [Running(key, key, held, pending, begun=held > 0) for key, (held, pending) in enumerate(pairs)]
    return running, draw(st.integers(0, 200))


def test_with_the_room_that_is_wanted_everybody_goes_on() -> None:
    running = [generating(1), prompt(2, 40, 5), prompt(3, 30), sharing(4, 10, 20)]
    room = wanted_room(running)

    assert plan(running, room=room, chunk_tokens=BATCH_TOKENS) == Step(((1, 1), (2, 40), (3, 30), (4, 20)))
    assert wanted_room([generating(1), generating(2)]) == 2


@given(clusters(), st.integers(1, BATCH_TOKENS))
def test_a_step_fits_and_serves_everybody_who_generates(cluster: tuple[list[Running], int], chunk: int) -> None:
    running, room = cluster
    by_key = {one.key: one for one in running}
    step = plan(running, room=room, chunk_tokens=chunk)
    if isinstance(step, Step):
        counts = dict(step.parts)
        assert len(counts) == len(step.parts) > 0
        assert sum(counts.values()) <= min(room, BATCH_TOKENS)
        assert all(0 < count <= by_key[key].pending for key, count in counts.items())
        assert {one.key for one in running if one.generates} <= set(counts)
        assert sum(count for key, count in counts.items() if not by_key[key].generates) <= chunk
    elif isinstance(step, Preempt):
        holders = [one.key for one in running if one.held]
        assert len(holders) > 1
        assert step.key == max(holders)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), min_size=1, max_size=5), st.integers(1, 64))
def test_everybody_comes_to_an_end_whatever_the_room(requests: list[tuple[int, int]], chunk: int) -> None:
    """Run the plan as the generator does, in a cache of 100 cells: no dead end, and the oldest is never thrown out."""
    capacity = 100
    tokens = {key: prompt_tokens for key, (prompt_tokens, _) in enumerate(requests)}
    left = {key: answer for key, (_, answer) in enumerate(requests)}
    held = dict.fromkeys(tokens, 0)
    for _ in range(20_000):
        if not tokens:
            return
        running = [Running(key, key, held[key], tokens[key] - held[key], begun=held[key] > 0) for key in tokens]
        decision = plan(running, room=capacity - sum(held.values()), chunk_tokens=chunk)
        if isinstance(decision, Preempt):
            assert decision.key != min(tokens)
            held[decision.key] = 0
        elif isinstance(decision, Overflow):
            assert tokens[decision.key] > capacity or held[decision.key] == capacity
            del tokens[decision.key], held[decision.key]
        else:
            for key, count in decision.parts:
                held[key] += count
                if held[key] == tokens[key]:
                    tokens[key] += 1
                    left[key] -= 1
                if left[key] == 0 or tokens[key] > capacity:
                    del tokens[key], held[key]
    pytest.fail("it never ends")
