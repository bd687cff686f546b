"""An answer that was cut anywhere goes on elsewhere: no gap, no repeat, and for greedy decoding the same text."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import Engine, Told, running_engine
from tests.support.scripted_gguf import TEMPLATE, Script, write_scripted
from tests.support.worker import STORYTELLER, RunningWorker

from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import InvalidRequestError

pytestmark = pytest.mark.allow_blocking("the engine runs in a thread of the test")

SUBJECTS = ["fox", "bear", "bee", "robot", "king", "cat", "dog", "boat", "star", "tree"]
FORMS = [
    "write a short story about a {}",
    "tell me a story about a {}",
    "who are you, {}?",
    "a {} please",
    "tell me about the {}",
]
PROMPTS = [form.format(subject) for form in FORMS for subject in SUBJECTS]


def greedy(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "temperature": 0, "max_tokens": 48, **more}


def cuts(told: Told) -> Iterator[dict[str, Any]]:
    """What the reader of a broken stream has after each frame, and before the first."""
    ids: tuple[int, ...] = ()
    chars = 0
    yield {"ids": ids, "emitted_chars": chars, "frames": 0}
    for number, (text, more) in enumerate(told.frames, 1):
        ids, chars = ids + more, chars + len(text)
        yield {"ids": ids, "emitted_chars": chars, "frames": number}


def check_every_cut(engine: Engine, request: dict[str, Any], **more: Any) -> int:
    """Resume after each frame of the whole answer, many at once; each must come to the same end. Returns how many."""
    whole = engine.answer(**request)
    orders = {number: {**request, **more, "resume": resume} for number, resume in enumerate(cuts(whole))}
    numbers = list(orders)
    slots = engine.facts.slots
    for begin in range(0, len(numbers), slots):
        for number, told in engine.answers({n: orders[n] for n in numbers[begin : begin + slots]}).items():
            prepared = told.order.prepared
            assert prepared.frames == number, "the index goes on"
            assert prepared.backlog == ()
            seen = whole.frames[:number] + told.frames
            assert seen == whole.frames, f"cut after frame {number} of {request}"
            assert told.end is not None
            assert whole.end is not None
            assert (told.end.stop_reason, told.end.tokens_out) == (whole.end.stop_reason, whole.end.tokens_out)
    return len(numbers)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine(slots=16, n_ctx=16 * 256, prefill_chunk=64) as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
def test_fifty_answers_cut_at_every_token(engine: Engine, form: str) -> None:
    prompts = [prompt for prompt in PROMPTS if prompt.startswith(form.partition("{")[0])][:10]
    assert len(prompts) == 10
    assert sum(check_every_cut(engine, greedy(prompt)) for prompt in prompts) > 200


def test_replayed_exactly(engine: Engine) -> None:
    for subject in SUBJECTS[:3]:
        check_every_cut(engine, greedy(f"write a short story about a {subject}"), resume_exact=True)


def test_a_stop_string_across_the_seam(engine: Engine) -> None:
    whole = engine.answer(**greedy("write a short story about a fox")).text
    at = len(whole) // 2
    for stop in (whole[at : at + 12], whole[at : at + 3], whole[at : at + 7] + "?"):
        check_every_cut(engine, greedy("write a short story about a fox", stop=[stop, "never said"]))


def test_the_penalty_knows_what_was_said_before_the_seam(engine: Engine) -> None:
    for penalty in ({"repetition_penalty": 1.5}, {"frequency_penalty": 0.7, "presence_penalty": 0.3}):
        check_every_cut(engine, greedy("write a short story about a bear", **penalty))


def test_characters_of_several_tokens_across_the_seam(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "m.gguf", Script("añ€🐝z".encode(), template=TEMPLATE))
    with running_engine(model, slots=4, n_ctx=1024, prefill_chunk=16) as engine:
        request = greedy("x")
        whole = engine.answer(**request)
        assert whole.text == "añ€🐝z"
        assert check_every_cut(engine, request) == 6
        for number in range(len(whole.ids)):  # also where no frame ends
            ids = whole.ids[:number]
            shown = bytes(token - 5 for token in ids).decode(errors="ignore")
            told = engine.answer(**request, resume={"ids": ids, "emitted_chars": len(shown)})
            assert shown + told.text == whole.text


def test_under_a_schema(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "kind": {"enum": ["fox", "bear"]}},
        "required": ["name", "kind"],
        "additionalProperties": False,
    }
    assert check_every_cut(engine, greedy("who are you", json_schema=schema)) > 5


def test_what_the_reader_has_not_seen_is_sent_first(engine: Engine) -> None:
    request = greedy("write a short story about a fox")
    whole = engine.answer(**request)
    told = engine.answer(**request, resume={"ids": whole.ids[:10], "emitted_chars": 7})
    backlog = "".join(visible.text for visible in told.order.prepared.backlog)

    assert whole.text[:7] + backlog + told.text == whole.text
    assert told.ids == whole.ids[10:]


def test_log_probabilities_stay_with_their_frames_across_the_seam(engine: Engine) -> None:
    request = greedy("write a short story about a fox", n_probs=1)
    whole = engine.answer(**request)
    held = whole.text[40:46]  # a stop string that is begun at the seam and not said
    request |= {"stop": [held + "?"]}
    for resume in list(cuts(engine.answer(**request)))[::3]:
        told = engine.answer(**request, resume=resume)
        said = set(resume["ids"])
        for (_, ids), logprobs in zip(told.frames, told.logprobs, strict=True):
            assert [token for token in ids if token in logprobs] == list(logprobs)
            assert len(logprobs) >= len(ids) - len(said.intersection(ids))
        assert sum(map(len, told.logprobs)) == len(told.ids)


def test_max_tokens_counts_from_the_first_start(engine: Engine) -> None:
    request = greedy("write a short story about a fox", max_tokens=20)
    whole = engine.answer(**request)
    for ids in (whole.ids[:12], whole.ids):
        told = engine.answer(**request, resume={"ids": ids, "emitted_chars": 0})
        assert told.reason is StopReason.MAX_TOKENS
        assert told.ids == whole.ids[len(ids) :]


def test_an_answer_that_had_ended_already(engine: Engine) -> None:
    request = greedy("write a short story about a fox", stop=["Finn"])
    whole = engine.answer(**greedy("write a short story about a fox"))
    assert "Finn" in whole.text
    told = engine.answer(**request, resume={"ids": whole.ids, "emitted_chars": 3})

    assert told.reason is StopReason.STOP_SEQUENCE
    assert told.ids == ()


@pytest.mark.parametrize("ids", [(2,), (5, 2, 6)])
def test_a_token_that_ends_an_answer_is_in_none(engine: Engine, ids: tuple[int, ...]) -> None:
    end = engine.order(prompt="x", ignore_eos=True).stages[0].biases[0][0]
    ids = tuple(end if token == 2 else token for token in ids)
    with pytest.raises(InvalidRequestError) as refused:
        engine.order(prompt="x", resume={"ids": ids, "emitted_chars": 0})

    assert refused.value.details["errors"][0]["field"] == f"resume.ids.{ids.index(end)}"


async def test_over_http_with_the_file_s_hash(worker: RunningWorker) -> None:
    request = greedy("write a short story about a fox")
    whole = await worker.execute(**request)
    sha256 = hashlib.sha256(STORYTELLER.read_bytes()).hexdigest()
    head = whole.of("token")[:9]
    resume = {
        "ids": [token for frame in head for token in frame["ids"]],
        "emitted_chars": sum(len(frame["t"]) for frame in head),
    }
    rest = await worker.execute(**request, resume={**resume, "sha256": sha256})
    other = await worker.refusal(**request, resume={**resume, "sha256": "0" * 64})

    assert [(frame["i"], frame["t"]) for frame in head + rest.of("token")] == [
        (frame["i"], frame["t"]) for frame in whole.of("token")
    ]
    assert rest.end["tokens_out"] == whole.end["tokens_out"]
    assert other == (409, "MODEL_MISMATCH")


def test_text_that_only_the_end_has_shown(tmp_path: Path) -> None:
    """A stop string that was begun and not said, and a character that was begun and not finished."""
    for says, stop in ((b"abc", "cd"), (b"ab\xe2\x82", "zz"), (b"ab\xe2\x82", "b\ufffdz")):
        model = write_scripted(tmp_path / "m.gguf", Script(says, template=TEMPLATE))
        with running_engine(model, slots=8, n_ctx=1024, prefill_chunk=16) as engine:
            for request in (greedy("x", stop=stop), greedy("x"), greedy("x", stop=stop, max_tokens=len(says))):
                assert engine.answer(**request).text == says.decode(errors="replace")
                check_every_cut(engine, request)
                check_every_cut(engine, request, resume_exact=True)


@pytest.mark.parametrize("stops", [["aba!", "abab!", "ba?"], ["bababa-"]])
def test_text_that_tokens_without_text_of_their_own_have_shown(tmp_path: Path, stops: list[str]) -> None:
    model = write_scripted(tmp_path / "m.gguf", Script(b"ab", forever=True, template=TEMPLATE))
    with running_engine(model, slots=8, n_ctx=1024, prefill_chunk=16) as engine:
        request = greedy("x", stop=stops, max_tokens=20)
        assert check_every_cut(engine, request) > 5


def test_an_answer_that_has_filled_its_context(tmp_path: Path) -> None:
    model = write_scripted(tmp_path / "m.gguf", Script(b"abc", forever=True, template=TEMPLATE))
    with running_engine(model, slots=2, n_ctx=256, prefill_chunk=16) as engine:
        request = greedy("x", max_tokens=2000)
        whole = engine.answer(**request)
        assert whole.reason is StopReason.CONTEXT_FULL
        for resume in list(cuts(whole))[-3:]:
            for exact in (False, True):
                told = engine.answer(**request, resume=resume, resume_exact=exact)
                assert resume["ids"] + told.ids == whole.ids
                assert told.reason is StopReason.CONTEXT_FULL


def test_more_text_than_the_ids_have_is_refused(engine: Engine) -> None:
    for stop in ((), ("Finn is",)):
        with pytest.raises(InvalidRequestError, match="characters"):
            engine.order(**greedy("x", stop=stop), resume={"ids": [400], "emitted_chars": 500})
