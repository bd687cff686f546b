"""Every sampling value reaches llama.cpp and does there what it says; contradictions are refused."""

import math
from typing import Any

import pytest
from tests.support.worker import Answer, RunningWorker

from rbee_shared.contracts.events import LogprobsEvent

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

STORY = {"prompt": "write a short story about a fox", "temperature": 0, "max_tokens": 60}
HOT = {"prompt": "write a short story", "temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 60}


def share_new(answer: Answer) -> float:
    """How many of its tokens are there for the first time."""
    return len(set(answer.ids)) / len(answer.ids)


async def test_a_banned_token_is_never_said_and_a_favoured_one_always(worker: RunningWorker) -> None:
    plain = await worker.execute(**STORY)
    second = plain.ids[1]
    banned = await worker.execute(**STORY, logit_bias={str(second): -100})
    favoured = await worker.execute(**STORY, logit_bias={str(second): 100})

    assert second not in banned.ids
    assert set(favoured.ids) == {second}


async def test_without_an_end_it_goes_on_to_max_tokens(worker: RunningWorker) -> None:
    body = {**STORY, "max_tokens": 400}
    ends = await worker.execute(**body)
    goes_on = await worker.execute(**body, ignore_eos=True)

    assert (ends.end["stop_reason"], goes_on.end["stop_reason"]) == ("EOS", "MAX_TOKENS")
    assert goes_on.end["tokens_out"] == 400
    assert goes_on.text.startswith(ends.text)


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}])
async def test_penalties_for_what_was_said(worker: RunningWorker, penalty: dict[str, float]) -> None:
    plain = await worker.execute(**HOT, seed=5)
    kept = {**HOT, "temperature": 0, "ignore_eos": True, "max_tokens": 200}
    repeated, penalised = [await worker.execute(**kept, **more) for more in ({}, penalty)]

    assert plain.ids
    assert share_new(penalised) > share_new(repeated)


async def test_typical_and_mirostat_narrow_what_is_chosen(worker: RunningWorker) -> None:
    async def surprise(**more: Any) -> float:
        answers = [await worker.execute(**{**HOT, **more}, logprobs=True, seed=seed) for seed in range(4)]
        told = [token["logprob"] for answer in answers for event in answer.of("logprobs") for token in event["tokens"]]
        return -sum(map(float, told)) / len(told)

    whole = await surprise(temperature=2.0)
    assert await surprise(temperature=2.0, typical_p=0.2) < whole
    for version in (1, 2):
        calm = await surprise(temperature=2.0, mirostat=version, mirostat_tau=0.5, mirostat_eta=0.3)
        assert calm < whole


async def test_log_probabilities(worker: RunningWorker) -> None:
    answer = await worker.execute(**STORY, n_probs=5)
    events = [LogprobsEvent.model_validate(event) for event in answer.of("logprobs")]
    tokens = answer.of("token")

    assert [event.i for event in events] == [token["i"] for token in tokens]
    assert [chosen.id for event in events for chosen in event.tokens] == answer.ids
    order = [name for name in answer.order if name in {"token", "logprobs"}]
    assert order == ["token", "logprobs"] * len(tokens), "each right after its token frame"
    for chosen in (chosen for event in events for chosen in event.tokens):
        assert len(chosen.top) == 5
        assert chosen.top[0].id == chosen.id, "greedy takes the most probable one"
        assert chosen.top[0].logprob == chosen.logprob <= 0
        values = [one.logprob for one in chosen.top]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1.0 + 1e-6


async def test_log_probabilities_are_the_model_s_own_whatever_is_forbidden(worker: RunningWorker) -> None:
    free = (await worker.execute(**{**STORY, "max_tokens": 1}, n_probs=2)).of("logprobs")[0]["tokens"][0]
    best, second = free["top"]
    banned = (await worker.execute(**{**STORY, "max_tokens": 1}, n_probs=2, logit_bias={str(best["id"]): -100})).of(
        "logprobs"
    )[0]["tokens"][0]

    assert banned["id"] == second["id"]
    assert banned["top"] == free["top"]


async def test_without_asking_no_log_probabilities_are_sent(worker: RunningWorker) -> None:
    assert (await worker.execute(**STORY)).of("logprobs") == []
    only = (await worker.execute(**{**STORY, "max_tokens": 2}, logprobs=True)).of("logprobs")
    assert [token["top"] for event in only for token in event["tokens"]] == [[], []]


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        pytest.param({"mirostat": 2, "temperature": 0}, ["(body)"], id="mirostat and greedy"),
        pytest.param({"ignore_eos": True, "json_schema": {"type": "object"}}, ["(body)"], id="no end, with a form"),
        pytest.param({"grammar": 'root ::= "x"', "json_schema": {}}, ["(body)"], id="two forms"),
        pytest.param({"tools": [{"type": "function"}]}, ["(body)"], id="tools for a prompt"),
        pytest.param({"resume_exact": True}, ["(body)"], id="exactly what"),
        pytest.param({"typical_p": 0}, ["typical_p"], id="typical_p"),
        pytest.param(
            {"frequency_penalty": 3, "presence_penalty": -3}, ["frequency_penalty", "presence_penalty"], id="both"
        ),
        pytest.param({"logit_bias": {"5": 101}}, ["logit_bias.5"], id="a bias"),
        pytest.param({"logit_bias": {"x": 1}}, ["logit_bias.x.[key]"], id="a bias for no token"),
        pytest.param({"logit_bias": {"999999": 1}}, ["logit_bias"], id="a bias for a token that is not there"),
        pytest.param({"n_probs": 21}, ["n_probs"], id="n_probs"),
        pytest.param({"stop": ["x"] * 10_000}, ["stop"], id="10,000 stop strings"),
        pytest.param({"resume": {"ids": [-1], "emitted_chars": 0}}, ["resume.ids.0"], id="a token below zero"),
        pytest.param({"resume": {"ids": [2**40], "emitted_chars": 0}}, ["resume.ids.0"], id="a token beyond 32 bits"),
        pytest.param({"resume": {"ids": [], "emitted_chars": 3}}, ["resume.emitted_chars"], id="text of no tokens"),
    ],
)
async def test_bad_values_are_named(worker: RunningWorker, values: dict[str, Any], fields: list[str]) -> None:
    response = await worker.client.post("/execute", json={"prompt": "x", **values})
    error = response.json()["error"]

    assert (response.status_code, error["code"]) == (400, "INVALID_REQUEST"), error
    assert [fault["field"] for fault in error["details"]["errors"]] == fields
    assert (await worker.health())["slots_busy"] == 0


async def test_a_form_and_a_bias_that_leave_no_token_end_that_answer_alone(worker: RunningWorker) -> None:
    plain = await worker.execute(prompt="x", json_schema={"type": "boolean"}, temperature=0)
    assert plain.text in {"true", "false"}
    words = [await worker.execute(prompt="x", json_schema={"const": word}, temperature=0) for word in (True, False)]
    banned = {str(token): -100 for answer in words for token in answer.ids}
    body = {"prompt": "x", "json_schema": {"type": "boolean"}, "logit_bias": banned}
    for more in ({"temperature": 0}, {"top_k": 3}, {"temperature": 2.0, "top_k": 0, "top_p": 1, "min_p": 0}):
        answer = await worker.execute(**body, **more)
        if answer.of("end"):  # there is more than one way to spell it
            assert answer.text in {"true", "false"}
        else:
            assert answer.of("error")[0]["code"] == "INVALID_REQUEST"
    every = {str(token): -100 for token in range(900)}
    answer = await worker.execute(prompt="x", json_schema={"const": "zzz"}, logit_bias=every, top_k=3)
    assert [frame["stop_reason"] for frame in answer.of("end")] == [] or answer.text == '"zzz"'
    assert (await worker.execute(**STORY)).text


async def test_too_many_messages(worker: RunningWorker) -> None:
    response = await worker.client.post("/execute", json={"messages": [{"role": "user", "content": "x"}] * 1001})

    assert response.status_code == 400
    assert response.json()["error"]["details"]["errors"][0]["field"] == "messages"
