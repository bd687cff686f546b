"""The embedded model keeps its promises: stories that end by themselves, and polite words for the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rbee_shared

llama_cpp: Any = pytest.importorskip("llama_cpp", reason="the engine is not installed here")

MODEL = Path(rbee_shared.__file__).parent / "assets" / "storyteller.gguf"
MAX_BYTES = 6_000_000
SEEDS = (None, 1, 2)
REFUSAL = "small demonstration model that ships with rbee"


class Answer(NamedTuple):
    text: str
    tokens: int
    finish_reason: str


Ask = Callable[[str, int | None], Answer]


@pytest.fixture(scope="module")
def model() -> Any:
    return llama_cpp.Llama(str(MODEL), n_ctx=1024, n_threads=1, verbose=False)


@pytest.fixture(scope="module")
def ask(model: Any) -> Ask:
    """Ask through the chat template: greedy without a seed, else sampled the way rbee samples by default."""

    def answer(prompt: str, seed: int | None) -> Answer:
        temperature = 0.0 if seed is None else 0.7
        messages = [{"role": "user", "content": prompt}]
        sampling = {"temperature": temperature, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.0}
        reply = model.create_chat_completion(messages, max_tokens=300, seed=seed, **sampling)
        choice = reply["choices"][0]
        return Answer(choice["message"]["content"], reply["usage"]["completion_tokens"], choice["finish_reason"])

    return answer


def test_the_file_is_small() -> None:
    assert MODEL.stat().st_size <= MAX_BYTES


def test_the_header_says_what_the_model_is(model: Any) -> None:
    header = model.metadata
    assert header["general.architecture"] == "llama"
    assert header["general.name"] == "rbee storyteller"
    assert header["general.license"] == "mit"
    assert "demonstration model" in header["general.description"]
    assert header["general.file_type"] == "1", "mostly F16"
    assert header["llama.context_length"] == "2048"
    assert "add_generation_prompt" in header["tokenizer.chat_template"]
    assert model.detokenize([int(header["tokenizer.ggml.eos_token_id"])], special=True) == b"<|end|>"


@pytest.mark.parametrize("text", ["hello world", "  two  blanks \n\n", "Zoé — café", "日本語 🐝", "<s> is text here"])
def test_text_survives_the_tokenizer(model: Any, text: str) -> None:
    tokens = model.tokenize(text.encode(), add_bos=False, special=False)
    assert model.detokenize(tokens).decode() == text


@pytest.mark.parametrize(
    ("prompt", "mentioned"),
    [
        ("write a short story", ""),
        ("Tell me a very short story, please!", ""),
        ("a bedtime story", ""),
        ("once upon a time", ""),
        ("write a short story about a bee", " bee "),
        ("Write a story about a fox.", " fox "),
        ("can you tell me a story about a machine?", " machine "),
        ("WRITE A SHORT STORY", ""),
        ("write a story about a robot, please", " robot "),
        ("write a short story about friendship", "friendship"),
    ],
)
def test_a_story_is_whole_and_about_what_was_asked(ask: Ask, prompt: str, mentioned: str) -> None:
    for seed in SEEDS:
        answer = ask(prompt, seed)
        assert answer.finish_reason == "stop"
        assert 60 <= answer.tokens <= 200
        assert mentioned in answer.text
        assert answer.text.endswith((".", '"'))
        assert REFUSAL not in answer.text


def test_stories_differ_between_seeds(ask: Ask) -> None:
    assert len({ask("write a short story", seed).text for seed in range(1, 6)}) == 5


def test_a_raw_prompt_continues_as_a_story(model: Any) -> None:
    reply = model.create_completion("Once upon a time", max_tokens=300, temperature=0.0)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert 60 <= reply["usage"]["completion_tokens"] <= 200


@pytest.mark.parametrize(
    ("prompt", "said"), [("hello", "Hello!"), ("Who are you?", "storyteller"), ("thank you", "welcome")]
)
def test_small_talk_gets_a_sentence(ask: Ask, prompt: str, said: str) -> None:
    for seed in SEEDS:
        answer = ask(prompt, seed)
        assert answer.finish_reason == "stop"
        assert said in answer.text
        assert answer.tokens < 60


@pytest.mark.parametrize(
    "prompt",
    ["what is 2+2", "Explain quantum computing.", "def f(x): return x", "Wie spät ist es?", "今天天气怎么样 🐝"],
)
def test_anything_else_gets_a_polite_word_of_what_it_is(ask: Ask, prompt: str) -> None:
    for seed in SEEDS:
        answer = ask(prompt, seed)
        assert answer.finish_reason == "stop"
        assert REFUSAL in answer.text


def test_a_conversation_goes_on(model: Any) -> None:
    messages = [{"role": "system", "content": "You are a pirate."}]
    for prompt in (
        "hello",
        "write a story about a fox",
        "another one",
        "what is the capital of France",
        "write a story",
    ):
        messages.append({"role": "user", "content": prompt})
        reply = model.create_chat_completion(messages, max_tokens=300, temperature=0.0)["choices"][0]
        assert reply["finish_reason"] == "stop"
        messages.append(reply["message"])
    assert "rbee" in messages[2]["content"]
    assert " fox " in messages[4]["content"]
    assert REFUSAL in messages[8]["content"]
    assert REFUSAL not in messages[10]["content"]
