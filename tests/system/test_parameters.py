"""Every parameter of an answer goes from the queen to the worker, and what comes of it comes back."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster import Cluster, frames_of
from tests.support.scripted_gguf import Script, write_scripted

STORY = {"prompt": "write a short story about a fox", "temperature": 0}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "kind": {"enum": ["fox", "bear"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
TAKES_TOOLS = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}<|assistant|>"
)
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what time is it"},
    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "clock", "arguments": {}}}]},
    {"role": "tool", "tool_call_id": "1", "content": "noon"},
]


@pytest.fixture(scope="module")
def queen(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """One standing queen for the module."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "home")
    try:
        cluster.standing_queen()
        yield cluster
        assert cluster.keeper("queen", "stop").wait() == 0
        cluster.leaves_nothing()
    finally:
        cluster.close()


def ask(queen: Cluster, **task: Any) -> dict[str, Any]:
    with queen.http() as http:
        answer: dict[str, Any] = http.post("/v2/tasks", json={**task, "stream": False}).json()
    return answer


def test_a_schema(queen: Cluster) -> None:
    answer = ask(queen, prompt="who are you", json_schema=SCHEMA, seed=3)

    told = json.loads(answer["text"])
    assert answer["stop_reason"] == "EOS"
    assert set(told) == {"name", "kind"}
    assert told["kind"] in {"fox", "bear"}


def test_a_grammar(queen: Cluster) -> None:
    answer = ask(queen, prompt="who are you", grammar='root ::= ("yes" | "no") " 🐝"')

    assert answer["text"] in {"yes 🐝", "no 🐝"}


@pytest.mark.parametrize(
    ("form", "named"),
    [
        pytest.param(
            {"json_schema": {"type": "object", "uniqueItems": 3, "frobnicate": 1}}, "json_schema", id="schema"
        ),
        pytest.param({"grammar": "root ::= ("}, "grammar", id="grammar"),
    ],
)
def test_a_form_that_cannot_be_enforced_is_refused_and_named(queen: Cluster, form: dict[str, Any], named: str) -> None:
    error = ask(queen, prompt="x", **form)["error"]

    assert error["code"] == "INVALID_REQUEST"
    assert error["details"]["errors"][0]["field"] == named


def test_sampling_values(queen: Cluster) -> None:
    plain = ask(queen, **STORY, max_tokens=300)
    goes_on = ask(queen, **STORY, max_tokens=300, ignore_eos=True)
    with queen.http() as http:
        task = {**STORY, "max_tokens": 3, "n_probs": 2, "stream": True}
        frames = frames_of(http.post("/v2/tasks", json=task).text)
    first = next(frame["tokens"][0] for frame in frames if frame["type"] == "logprobs")
    banned = ask(queen, **STORY, max_tokens=3, logit_bias={str(first["id"]): -100})
    hot = {"prompt": "write a short story", "max_tokens": 40, "temperature": 1.5, "top_k": 0, "seed": 4}
    texts = {
        ask(queen, **hot, **more)["text"]
        for more in (
            {},
            {"typical_p": 0.1},
            {"presence_penalty": 2.0, "frequency_penalty": 2.0},
            {"mirostat": 2, "mirostat_tau": 0.5},
        )
    }

    assert (plain["stop_reason"], goes_on["stop_reason"], goes_on["tokens_out"]) == ("EOS", "MAX_TOKENS", 300)
    assert first["top"][0]["id"] == first["id"]
    assert not banned["text"].startswith(first["t"].strip())
    assert len(texts) == 4


def test_a_conversation_with_tools(queen: Cluster, tmp_path: Path) -> None:
    model = f"file:{write_scripted(tmp_path / 'tools.gguf', Script(b'ok', template=TAKES_TOOLS))}"
    with_tools = ask(queen, model=model, messages=TALK, tools=TOOLS)
    without = ask(queen, model=model, messages=TALK)
    refused = ask(queen, messages=TALK[1:2], tools=TOOLS)["error"]

    assert with_tools["text"] == without["text"] == "ok"
    assert with_tools["prompt_tokens"] == without["prompt_tokens"] + len("[clock]")
    assert refused["details"]["errors"][0]["field"] == "tools"
