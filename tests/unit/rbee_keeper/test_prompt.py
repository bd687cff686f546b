"""From what was typed to what is sent."""

from pathlib import Path

import pytest

from rbee_keeper.prompt import check_request, device_named, model_named, read_prompt
from rbee_shared.errors import InvalidRequestError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/bee")
    (tmp_path / "here.gguf").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("builtin:storyteller", "builtin:storyteller"),
        ("hf:o/r:Q4_K_M", "hf:o/r:Q4_K_M"),
        ("an-id", "an-id"),
        ("missing.gguf", "missing.gguf"),
        ("here.gguf", "file:{here}/here.gguf"),
        ("./x.gguf", "file:{here}/x.gguf"),
        ("../x.gguf", "file:{parent}/x.gguf"),
        ("~/x.gguf", "file:/home/bee/x.gguf"),
        ("/abs/../x.gguf", "file:/x.gguf"),
        ("file:x.gguf", "file:{here}/x.gguf"),
        ("FILE:/x.gguf", "file:/x.gguf"),
        ("file:", "file:"),
    ],
)
def test_a_file_here_is_named_by_its_absolute_path(typed: str, sent: str, here: Path) -> None:
    assert model_named(typed, None) == sent.format(here=here, parent=here.parent)
    assert model_named(typed, "localhost") == sent.format(here=here, parent=here.parent)


def test_a_path_on_another_node_is_left_as_it_is() -> None:
    assert model_named("file:x.gguf", "mac") == "file:x.gguf"
    assert model_named("/models/x.gguf", "mac") == "file:/models/x.gguf"


@pytest.mark.parametrize(("typed", "sent"), [("1", 1), ("cuda:1", "cuda:1"), (None, None), ("²", "²")])
def test_a_device_is_an_index_or_an_id(typed: str | None, sent: int | str | None) -> None:
    assert device_named(typed) == sent


def test_the_prompt_is_given_once() -> None:
    assert read_prompt("a", None) == read_prompt(None, "a") == "a"
    with pytest.raises(InvalidRequestError, match="twice"):
        read_prompt("a", "b")
    with pytest.raises(InvalidRequestError, match="empty"):
        read_prompt(" ", None)


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        read_prompt("caf\udce9", None)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "temperature": float("nan")}, "temperature"),
        ({"prompt": "x", "backend": "tpu"}, "backend"),
        ({"prompt": "x", "model": "no such form!"}, "not a model reference"),
    ],
)
def test_a_wrong_request_is_found_without_a_queen(request_: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidRequestError, match=fault):
        check_request(request_)
    check_request({"prompt": "x"})
