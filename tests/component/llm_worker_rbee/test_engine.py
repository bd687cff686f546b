"""The engine with real models: many answers at once, reuse, preemption, cancel, and that none touches another."""

import itertools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import Engine, Told, running_engine
from tests.support.random_gguf import Shape, write_random
from tests.support.scripted_gguf import Script, write_scripted

from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import ContextOverflowError, InvalidRequestError

pytestmark = pytest.mark.allow_blocking("the engine runs in a thread of the test")

SUBJECTS = ["a fox", "a bear", "the sea", "a bee", "a lost key", "a robot", "the moon", "a garden"]


def story(subject: str, **more: Any) -> dict[str, Any]:
    return {"prompt": f"write a short story about {subject}", "temperature": 0, "max_tokens": 200, **more}


STORIES = {subject: story(subject) for subject in SUBJECTS}


@pytest.fixture(scope="module", params=["unified", "split"])
def engine(request: pytest.FixtureRequest) -> Generator[Engine]:
    """Eight slots with room for everybody, in both kinds of cache."""
    with running_engine(slots=8, n_ctx=8 * 1024, is_unified=request.param == "unified") as running:
        yield running


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    """Each story from an engine of one slot."""
    with running_engine(slots=1) as running:
        return {subject: running.answer(**request).text for subject, request in STORIES.items()}


def test_eight_at_once_tell_what_each_tells_alone(engine: Engine, alone: dict[str, str]) -> None:
    for _ in range(2):  # the second time from the cache
        told = engine.answers(STORIES)

        assert {subject: answer.text for subject, answer in told.items()} == alone
        assert {answer.reason for answer in told.values()} == {StopReason.EOS}


def test_the_same_prompt_again_is_in_the_cache(engine: Engine) -> None:
    first = engine.answer(**story("a kite", max_tokens=20))
    second = engine.answer(**story("a kite", max_tokens=20))
    prompt_tokens = len(first.order.prepared.prompt)

    assert second.begun[0].cached_tokens == prompt_tokens - 1, "one is decoded for its logits"
    assert second.text == first.text
    assert second.end is not None
    assert second.end.cached_tokens == prompt_tokens - 1


def test_cancelling_one_of_eight_touches_no_other(engine: Engine, alone: dict[str, str]) -> None:
    told = {subject: Told(engine.order(**request)) for subject, request in STORIES.items()}
    by_key = {one.order.key: one for one in told.values()}
    for one in told.values():
        engine.thread.submit(one.order)
    victim = told["the sea"]
    engine.follow(by_key, until=lambda: len(victim.frames) >= 10)
    engine.thread.cancel(victim.order.key)
    engine.follow(by_key, until=lambda: victim.end is not None)

    assert victim.reason is StopReason.CANCELLED
    assert alone["the sea"].startswith(victim.text)
    assert len(victim.text) < len(alone["the sea"])
    engine.follow(by_key)
    assert {subject: told[subject].text for subject in SUBJECTS if subject != "the sea"} == {
        subject: alone[subject] for subject in SUBJECTS if subject != "the sea"
    }
    others = [one for one in told.values() if one is not victim]
    theirs = sum(len(one.order.prepared.prompt) + len(one.ids) for one in others)
    assert 0 < engine.thread.kv_cells_used <= theirs, "nothing of the cancelled one takes room"


def test_a_cancelled_answer_leaves_nothing_in_the_cache() -> None:
    with running_engine(slots=2) as engine:
        told = Told(engine.order(**story("a fox", ignore_eos=True, max_tokens=1500)))
        engine.thread.submit(told.order)
        engine.follow({told.order.key: told}, until=lambda: len(told.frames) >= 20)
        engine.thread.cancel(told.order.key)
        engine.follow({told.order.key: told})
        begun = engine.answer(**story("a fox", max_tokens=1)).begun[0]

        assert begun.cached_tokens == 0


def test_a_beginning_is_shared_with_an_answer_that_still_runs() -> None:
    with running_engine(slots=4) as engine:
        long = Told(engine.order(**story("a fox", ignore_eos=True, max_tokens=800)))
        engine.thread.submit(long.order)
        engine.follow({long.order.key: long}, until=lambda: len(long.frames) >= 5)
        other = Told(engine.order(**story("a fox", max_tokens=5)))
        engine.thread.submit(other.order)
        engine.follow({told.order.key: told for told in (long, other)})

        assert other.begun[0].cached_tokens == len(other.order.prepared.prompt) - 1
        assert long.text.startswith(other.text)


def test_split_slots_share_nothing_and_reuse_their_own() -> None:
    with running_engine(slots=2, n_ctx=2048, is_unified=False) as engine:
        told = [engine.answer(**story("a fox", max_tokens=30)) for _ in range(3)]

        assert [one.begun[0].cached_tokens > 0 for one in told] == [False, False, True], "an empty slot is taken first"
        assert len({one.text for one in told}) == 1


@pytest.mark.parametrize("slots", [2, 4])
def test_a_full_cache_sets_the_youngest_back_and_nobody_loses_or_repeats_a_token(
    alone: dict[str, str], slots: int
) -> None:
    with running_engine(slots=slots, n_ctx=256) as engine:  # two stories fit, four do not
        told = engine.answers({subject: STORIES[subject] for subject in SUBJECTS[:slots]})

        assert {subject: answer.text for subject, answer in told.items()} == {
            subject: alone[subject] for subject in SUBJECTS[:slots]
        }
        preempted = [answer.preemptions for answer in told.values()]
        assert preempted[0] == 0, "the oldest goes on"
        assert sum(preempted) == 0 if slots == 2 else sum(preempted) > 0


def test_idle_prefixes_give_way_before_anybody_is_set_back() -> None:
    with running_engine(slots=4, n_ctx=512) as engine:
        for subject in SUBJECTS:
            told = engine.answer(**story(subject))
            assert told.preemptions == 0
            assert told.reason is StopReason.EOS
        assert engine.thread.kv_cells_used <= 512


def test_one_long_answer_may_use_what_the_others_do_not(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "m.gguf", Script(b"abcdefgh", forever=True, n_ctx=4096))
    with running_engine(model, slots=4, n_ctx=1024) as engine:
        told = engine.answer(prompt="x", template="raw", temperature=0, max_tokens=5000)

        assert told.reason is StopReason.CONTEXT_FULL
        assert len(told.ids) == 1024 - len(told.order.prepared.prompt) + 1
    with running_engine(model, slots=4, n_ctx=1024, is_unified=False) as engine:
        told = engine.answer(prompt="x", template="raw", temperature=0, max_tokens=5000)

        assert told.reason is StopReason.CONTEXT_FULL
        assert len(told.ids) == 256 - len(told.order.prepared.prompt) + 1


def test_no_answer_goes_beyond_what_the_model_was_trained_for(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "m.gguf", Script(b"abcdefgh", forever=True, n_ctx=512))
    with running_engine(model, slots=4, n_ctx=2048) as engine:
        told = engine.answer(prompt="x", template="raw", temperature=0, max_tokens=5000)
        assert len(told.ids) == 512 - len(told.order.prepared.prompt) + 1
        with pytest.raises(ContextOverflowError):
            engine.order(prompt="x" * 600, template="raw")


def test_ten_turns_of_a_conversation_compute_only_what_is_new() -> None:
    with running_engine(slots=2) as engine:
        messages: list[dict[str, str]] = []
        computed, total = [], 0
        for turn in range(10):
            messages.append({"role": "user", "content": f"tell me more about fox number {turn}"})
            told = engine.answer(messages=messages, temperature=0, max_tokens=40)
            messages.append({"role": "assistant", "content": told.text})
            total = len(told.order.prepared.prompt)
            computed.append(total - told.begun[0].cached_tokens)

        assert total > 400
        assert max(computed[1:]) < 45, "about what the last turn added, or less"


def test_greedy_text_of_an_f16_model_does_not_depend_on_company(tmp_path: Path) -> None:
    model = write_random(tmp_path / "random.gguf", Shape(kind="F16"))
    requests = {
        number: {
            "prompt": f"number {number} " * 20,
            "template": "raw",
            "temperature": 0,
            "max_tokens": 24,
            "ignore_eos": True,
        }
        for number in range(6)
    }
    with running_engine(model, slots=1, prefill_chunk=16) as engine:
        alone = [engine.answer(**request).ids for request in requests.values()]
    with running_engine(model, slots=6, prefill_chunk=16) as engine:
        together = [told.ids for told in engine.answers(requests).values()]

    assert all(len(ids) == 24 for ids in alone)
    # random weights have narrow margins: the shape of a batch may turn a near tie, not the whole
    pairs = zip(itertools.chain(*alone), itertools.chain(*together), strict=True)
    same = sum(one == other for one, other in pairs)
    assert same >= 6 * 24 * 0.5


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param({"logit_bias": {10**6: 1.0}}, "logit_bias", id="a token that is none"),
        pytest.param({"resume": {"ids": [10**6], "emitted_chars": 0}}, "resume.ids", id="a resumed token that is none"),
        pytest.param({"resume": {"ids": [1], "emitted_chars": 99}}, "resume.emitted_chars", id="more than was said"),
    ],
)
def test_what_only_the_model_can_refuse(engine: Engine, request_: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        engine.order(prompt="x", **request_)

    assert [fault["field"] for fault in refused.value.details["errors"]] == [field]
