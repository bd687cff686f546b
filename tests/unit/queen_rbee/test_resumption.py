"""Where a broken-off answer stands, and how it is asked for and told: no token lost, none twice."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.domain.resumption import (
    EXACT_TOKENS,
    Standing,
    Stretch,
    request_to_go_on,
    standing_of,
    told_as_one,
)
from rbee_shared import sse
from rbee_shared.contracts.events import EndEvent, token_frame
from rbee_shared.contracts.tasks import ExecuteRequest
from rbee_shared.errors import BadPeerError
from rbee_shared.event_log import EventLog

BODY = {"prompt": "hi", "job_id": "task-1", "temperature": 0.0, "max_tokens": 9}
TOKENS = st.lists(st.tuples(st.text(min_size=1), st.lists(st.integers(0, 2**31 - 1), max_size=4)), max_size=30)
OTHERS = st.sampled_from(
    [
        sse.encode("narration", {"human": "event: token\ndata: {}"}),
        sse.encode("logprobs", {"i": 0, "tokens": []}),
        sse.encode("progress", {"stage": "load"}),
    ]
)


@given(TOKENS, st.lists(OTHERS, max_size=5))
def test_it_stands_where_its_readers_are(tokens: list[tuple[str, list[int]]], others: list[bytes]) -> None:
    log = EventLog()
    log.append(sse.encode("started", {"job_id": "task-1"}))
    for number, (text, ids) in enumerate(tokens):
        log.append(token_frame(text, number, ids))
        for other in others:
            log.append(other, droppable=True)

    standing = standing_of(log.everything())

    assert standing.frames == len(tokens)
    assert standing.ids == tuple(token for _, ids in tokens for token in ids)
    assert standing.chars == len("".join(text for text, _ in tokens))


@given(st.text())
def test_characters_are_those_that_the_worker_counts(text: str) -> None:
    assert standing_of(token_frame(text, 0, [1])).chars == len(text)


def test_tokens_that_were_kept_when_all_else_was_dropped_are_enough() -> None:
    log = EventLog(limit_bytes=2000)
    for number in range(100):
        log.append(sse.encode("narration", {"human": "x" * 50}), droppable=True)
        log.append(token_frame("ab", number, [number, number]))

    assert standing_of(log.everything()) == Standing(100, tuple(n for n in range(100) for _ in "ab"), 200)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"type":"token","t":"x","i":0}',
        b'{"type":"token","t":"x","i":0,"ids":["a"]}',
        b'{"type":"token","t":null,"i":0,"ids":[]}',
        b'{"type":"token","t":"x","i":0,"ids":[],"more":1}',
        b'{"type":"token","t":"\\ud800","i":0,"ids":[]}',
        b'{"type":"token","t":"x","i":1,"ids":[]}',
        b'{"type":"token","t":"x","i":-1,"ids":[]}',
    ],
)
def test_a_token_that_is_none_ends_all_hope(data: bytes) -> None:
    with pytest.raises(BadPeerError):
        standing_of(b"id: 1\nevent: token\ndata: " + data + b"\n\n")


@given(st.binary())
def test_garbage_is_refused_or_passed_over(garbage: bytes) -> None:
    try:
        standing_of(b"event: token\ndata: " + garbage + b"\n\n")
    except BadPeerError:
        return


@pytest.mark.parametrize("numbers", [(0, 0), (0, 2), (1,), (0, 1, 1)])
def test_a_gap_or_a_repeat_is_no_place_to_go_on_from(numbers: tuple[int, ...]) -> None:
    with pytest.raises(BadPeerError, match="had to come"):
        standing_of(b"".join(token_frame("x", number, [1]) for number in numbers))


def test_nothing_said_is_the_same_request() -> None:
    assert request_to_go_on(BODY, Standing()) == BODY


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1), st.floats(0, 2))
def test_the_request_to_go_on_is_one_that_a_worker_takes(ids: list[int], temperature: float) -> None:
    body = {**BODY, "temperature": temperature}
    asked = request_to_go_on(body, Standing(len(ids), tuple(ids), 3))

    request = ExecuteRequest.model_validate(json.loads(json.dumps(asked)))
    assert request.resume is not None
    assert (request.resume.ids, request.resume.emitted_chars) == (tuple(ids), 3)
    assert request.resume_exact is (temperature == 0)
    assert {name: asked[name] for name in body} == body, "all else as it was"


@pytest.mark.parametrize(
    ("temperature", "tokens", "exact"),
    [(0, 1, True), (0.0, EXACT_TOKENS, True), (0, EXACT_TOKENS + 1, False), (0.1, 1, False), (None, 1, False)],
)
def test_steps_are_repeated_where_the_words_are_a_promise(temperature: float, tokens: int, exact: bool) -> None:
    body = {**BODY, "temperature": temperature}
    assert request_to_go_on(body, Standing(tokens, (1,) * tokens, 1))["resume_exact"] is exact


def end(**more: Any) -> dict[str, Any]:
    counts = {"tokens_out": 30, "prompt_tokens": 5, "cached_tokens": 5, "stop_reason": "EOS"}
    return {**counts, "ttft_ms": 1.0, "decode_time_ms": 1.0, "tokens_per_s": 1.0, **more}


def test_times_are_those_of_the_whole_answer_without_the_time_between_its_parts() -> None:
    whole = told_as_one(end(newer="kept"), [Stretch(10.0, 10.5, 12.5), Stretch(100.0, 140.0, 141.0)])

    assert (whole["ttft_ms"], whole["decode_time_ms"], whole["tokens_per_s"]) == (500.0, 3000.0, 10.0)
    assert (whole["tokens_out"], whole["newer"]) == (30, "kept")
    EndEvent.model_validate(whole)


def test_an_answer_in_no_time_has_no_speed() -> None:
    assert told_as_one(end(), [Stretch(1.0, 2.0, 2.0)])["tokens_per_s"] == 0.0
