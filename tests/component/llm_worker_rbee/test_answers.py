"""What a worker answers: frames, sampling, stop strings, whole characters, templates, bounds."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted_gguf import BOS, END, TEMPLATE, Script, byte_token, write_scripted
from tests.support.worker import RunningWorker, worker_process

from rbee_shared.contracts.events import EndEvent, NarrationEvent, StartedEvent, TokenEvent

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

STORY = {"prompt": "write a short story"}
WORDS = "abé🐝€"


async def scripted(tmp_path: Path, script: Script, *flags: str, **body: Any) -> Any:
    """One answer of a scripted model, or the error that it got."""
    model = write_scripted(tmp_path / "model.gguf", script)
    async with worker_process(tmp_path, *flags, model=model) as worker:
        await worker.until_ready()
        response = await worker.client.post("/execute", json=body)
        if response.status_code != 200:
            return response.json()["error"]
        return await worker.execute(**body)


async def test_the_frames_of_an_answer(worker: RunningWorker) -> None:
    answer = await worker.execute(job_id="frames-1", **STORY, max_tokens=20)
    tokens = [TokenEvent.model_validate(frame) for frame in answer.of("token")]
    end = EndEvent.model_validate(answer.end)

    assert StartedEvent.model_validate(answer.of("started")[0]).job_id == "frames-1"
    assert answer.order[0] == "started"
    assert answer.order[-2:] == ["end", "message"]
    assert answer.frames[-1].data == b"[DONE]"
    assert all(frame.id is None for frame in answer.frames)
    assert [token.i for token in tokens] == list(range(len(tokens)))
    assert end.tokens_out == 20 == len(answer.ids)
    assert end.stop_reason == "MAX_TOKENS"
    assert end.cached_tokens < end.prompt_tokens
    assert 0 < end.ttft_ms < 5000
    assert end.tokens_per_s == pytest.approx(end.tokens_out / end.decode_time_ms * 1000, rel=0.01)


async def test_the_narration_of_an_answer_tells_what_started_and_end_say(worker: RunningWorker) -> None:
    await worker.execute(**STORY, max_tokens=1)
    response = await worker.client.post(
        "/execute", json={**STORY, "max_tokens": 20}, headers={"X-Correlation-Id": "req-story"}
    )
    data = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    lines = [NarrationEvent.model_validate(event) for event in data if event["type"] == "narration"]
    end = next(event for event in data if event["type"] == "end")

    assert [f"{line.actor}: {line.human}" for line in lines[:4]] == [
        "llama-backend: starting inference (prompt 19 characters, at most 20 tokens)",
        f"tokenizer: tokenized prompt ({end['prompt_tokens']} tokens)",
        f"llama-backend: cache: {end['cached_tokens']} tokens reused",
        "llama-backend: generated 10 tokens",
    ]
    assert lines[-1].human.startswith("inference complete: 20 tokens in ")
    assert {line.correlation_id for line in lines} == {"req-story"}
    assert response.headers["X-Correlation-Id"] == "req-story"


async def test_greedy_is_the_same_every_time_and_does_not_care_for_the_seed(worker: RunningWorker) -> None:
    answers = [await worker.execute(**STORY, temperature=0, seed=seed) for seed in (1, 2, 2)]

    assert len({answer.text for answer in answers}) == 1
    assert len(answers[0].text) > 20


async def test_the_same_seed_gives_the_same_text(worker: RunningWorker) -> None:
    hot = {**STORY, "temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 40}
    same = {(await worker.execute(**hot, seed=42)).text for _ in range(3)}
    others = {(await worker.execute(**hot, seed=seed)).text for seed in (1, 2, 3)}
    unseeded = {(await worker.execute(**hot)).text for _ in range(3)}

    assert len(same) == 1
    assert len(same | others) == 4
    assert len(unseeded) == 3


async def test_every_sampling_value_at_its_bounds_is_taken(worker: RunningWorker) -> None:
    for value in (
        {"temperature": 2.0, "top_k": 1_000_000, "top_p": 1.0, "min_p": 1.0},
        {"temperature": 1e-9, "repetition_penalty": 10.0, "seed": 2**32 - 2},
        {"top_p": 1e-9, "repetition_penalty": 1e-9, "seed": 0},
    ):
        assert (await worker.execute(**STORY, max_tokens=5, **value)).end["tokens_out"] <= 5


async def test_one_token(worker: RunningWorker) -> None:
    answer = await worker.execute(**STORY, max_tokens=1)

    assert (answer.end["tokens_out"], len(answer.ids)) == (1, 1)


async def test_the_story_ends_by_itself_and_shows_no_control_text(worker: RunningWorker) -> None:
    answer = await worker.execute(**STORY, temperature=0, max_tokens=1000)

    assert answer.end["stop_reason"] == "EOS"
    assert "<|" not in answer.text


async def test_a_stop_string_across_token_borders(worker: RunningWorker) -> None:
    whole = (await worker.execute(**STORY, temperature=0)).text
    at = len(whole) // 2
    stop = whole[at : at + 9]
    answer = await worker.execute(**STORY, temperature=0, stop=["not in there", stop])

    assert answer.text == whole[: whole.index(stop)]
    assert answer.end["stop_reason"] == "STOP_SEQUENCE"
    assert answer.end["stop_sequence_matched"] == stop


@pytest.mark.parametrize("messages", [True, False])
async def test_characters_of_several_tokens_come_whole(tmp_path: Path, messages: bool) -> None:
    asked = {"messages": [{"role": "user", "content": "¿Qué? 🐝"}]} if messages else {"prompt": "¿Qué? 🐝"}
    answer = await scripted(tmp_path, Script(WORDS.encode(), template=TEMPLATE), **asked)

    assert [token["t"] for token in answer.of("token")] == list(WORDS)
    assert answer.ids == [byte_token(byte) for byte in WORDS.encode()]
    assert answer.end["stop_reason"] == "EOS"


async def test_a_character_that_is_never_completed_is_replaced(tmp_path: Path) -> None:
    answer = await scripted(tmp_path, Script(b"ok\xf0\x9f"), prompt="x", temperature=0)

    assert answer.text == "ok\ufffd"


async def test_a_stop_string_that_is_only_begun_is_text(tmp_path: Path) -> None:
    answer = await scripted(tmp_path, Script(b"by <en"), prompt="x", stop="<end>")

    assert answer.text == "by <en"
    assert answer.end["stop_reason"] == "EOS"
    assert answer.end["stop_sequence_matched"] is None


async def test_a_full_context_ends_the_answer(tmp_path: Path) -> None:
    answer = await scripted(tmp_path, Script(b"abc", forever=True, n_ctx=256), prompt="x" * 9, max_tokens=5000)

    assert answer.end["prompt_tokens"] == 10
    assert answer.end["stop_reason"] == "CONTEXT_FULL"
    assert answer.end["tokens_out"] == 256 - 10 + 1  # the last one is chosen from a full context


async def test_a_prompt_that_is_longer_than_the_context(tmp_path: Path) -> None:
    error = await scripted(tmp_path, Script(b"abc", n_ctx=256), prompt="x" * 300)

    assert error["code"] == "CONTEXT_OVERFLOW"
    assert "301 tokens" in error["message"]
    assert "256" in error["message"]
    assert error["details"]["prompt_tokens"] == 301
    assert error["details"]["n_ctx"] == 256
    assert error["details"]["errors"][0]["field"] == "prompt"


async def test_a_long_prompt_is_decoded_in_chunks(tmp_path: Path) -> None:
    answer = await scripted(tmp_path, Script(b"abc", n_ctx=4096), prompt="x" * 2000, max_tokens=10)

    assert answer.text == "abc"
    assert answer.end["prompt_tokens"] == 2001


async def test_a_model_without_a_template_takes_prompts_and_no_messages(tmp_path: Path) -> None:
    error = await scripted(tmp_path, Script(b"abc"), messages=[{"role": "user", "content": "x"}])

    assert error["code"] == "INVALID_REQUEST"
    assert "template" in error["message"]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ raise_exception('roles must alternate') }}", id="it refuses"),
        pytest.param("{% for %}", id="not valid"),
        pytest.param("{{ 'a' * 3000000000 }}", id="a bomb"),
        pytest.param("{{ ().__class__.__bases__ }}", id="an escape"),
        pytest.param("{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}", id="too long"),
        pytest.param("{{ messages[7].content.nothing }}", id="out of range"),
    ],
)
async def test_a_template_that_fails_is_the_request_s_failure(tmp_path: Path, template: str) -> None:
    error = await scripted(tmp_path, Script(b"abc", template=template), prompt="x")

    assert error["code"] == "INVALID_REQUEST"
    assert "template" in error["message"]


async def test_a_user_s_words_are_no_control_tokens(tmp_path: Path) -> None:
    spelled = len("<|end|>")
    script = Script(b"abc", template=TEMPLATE)
    model = write_scripted(tmp_path / "model.gguf", script)
    async with worker_process(tmp_path, model=model) as worker:
        await worker.until_ready()
        plain = (await worker.execute(prompt="xx")).end["prompt_tokens"]
        smuggled = (await worker.execute(prompt="x<|end|>x")).end["prompt_tokens"]
        raw = (await worker.execute(prompt="x<|end|>x", template="raw")).end["prompt_tokens"]

    assert smuggled == plain + spelled
    assert raw == 4, f"{BOS}, x, {END}, x"


async def test_the_penalty_reaches_the_engine(worker: RunningWorker) -> None:
    plain, penalised = [
        (await worker.execute(**STORY, temperature=0, max_tokens=60, repetition_penalty=penalty)).ids
        for penalty in (1.0, 10.0)
    ]

    assert len(set(penalised)) / len(penalised) > len(set(plain)) / len(plain)
