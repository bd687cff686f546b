"""What the wire takes and refuses, and what a request says of itself."""

from typing import Any

import pytest
from pydantic import ValidationError

from rbee_shared.contracts.tasks import ChatMessage, ExecuteRequest, TaskRequest
from rbee_shared.contracts.workers import SpawnRequest, WorkerHeartbeat, WorkerState


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({}, "builtin:storyteller"),
        ({"model": "file:/a.gguf"}, "file:/a.gguf"),
        ({"model_ref": "qwen-0.5b"}, "qwen-0.5b"),
    ],
)
def test_a_task_names_its_model_by_either_name_or_not_at_all(body: dict[str, Any], model: str) -> None:
    assert TaskRequest(prompt="x", **body).chosen_model == model


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "model": "a", "model_ref": "b"},
        {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
        {"messages": None},
    ],
)
def test_a_task_that_contradicts_itself_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskRequest.model_validate(body)


def test_fields_nobody_knows_are_told_from_fields_that_are_not_built_yet() -> None:
    resume = {"ids": [], "emitted_chars": 0}
    body = {"prompt": "x", "frobnicate": 1, "deadline_ms": 5, "priority": None, "resume": resume}

    task, execute = TaskRequest.model_validate(body), ExecuteRequest.model_validate(body)

    assert task.unknown_fields == ("frobnicate", "resume")
    assert task.unbuilt_fields == execute.unbuilt_fields == ("deadline_ms",)
    assert execute.resume is not None


@pytest.mark.parametrize(
    "body",
    [
        {"grammar": "root ::= x", "json_schema": {}},
        {"ignore_eos": True, "json_schema": {}},
        {"ignore_eos": True, "grammar": "root ::= x"},
        {"tools": [{"type": "function"}]},
        {"mirostat": 1, "temperature": 0},
        {"resume_exact": True},
    ],
)
def test_values_that_contradict_each_other_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExecuteRequest.model_validate({"prompt": "x", **body})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": "x", "tool_calls": [{}]},
        {"role": "assistant", "tool_calls": []},
        {"role": "narrator", "content": "x"},
    ],
)
def test_a_turn_that_says_nothing_or_calls_out_of_turn_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatMessage.model_validate(message)


def test_turns_of_a_conversation_with_tools() -> None:
    call = ChatMessage.model_validate({"role": "assistant", "tool_calls": [{"id": "1"}]})
    answer = ChatMessage.model_validate({"role": "tool", "content": "12:00", "tool_call_id": "1", "name": "clock"})

    assert call.content is None
    assert (answer.content, answer.tool_call_id) == ("12:00", "1")


def test_token_ids_of_a_bias_are_numbers_although_json_has_texts() -> None:
    assert TaskRequest.model_validate({"prompt": "x", "logit_bias": {"7": -100}}).logit_bias == {7: -100.0}


def test_a_spawn_order_names_exactly_one_model() -> None:
    assert SpawnRequest(model="a").chosen_model == "a"
    assert SpawnRequest(model_ref="b").chosen_model == "b"
    for body in ({}, {"model": "a", "model_ref": "b"}):
        with pytest.raises(ValidationError, match="give model"):
            SpawnRequest.model_validate(body)


@pytest.mark.parametrize(
    ("spelt", "state"), [("Ready", WorkerState.IDLE), ("Loading", WorkerState.LOADING), ("busy", WorkerState.BUSY)]
)
def test_a_workers_state_in_any_spelling_of_the_seeds(spelt: str, state: WorkerState) -> None:
    assert WorkerHeartbeat.model_validate({"worker_id": "w", "state": spelt}).state is state


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        WorkerHeartbeat.model_validate({"worker_id": "w", "state": 5})
