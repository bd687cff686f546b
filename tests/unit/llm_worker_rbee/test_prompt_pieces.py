"""Control texts in what a user says: found wherever they stand, hidden, shown again as plain text."""

import re
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.prompt_pieces import MAX_HIDDEN, ControlTexts, Piece, Shield, TooManyControlTextsError

CONTROLS = ["<s>", "<|end|>", "<|end|>x", "<|e", "日本", ""]
SCRAPS = [*CONTROLS, "<", "|", "end|>", "x", "日", "\ue000", "\ue001", "0"]
TEXTS = st.lists(st.sampled_from(SCRAPS), max_size=20).map("".join)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def shield() -> Shield:
    return Shield(CONTROLS, secret="1234567890")


@given(TEXTS)
def test_control_texts_are_found_as_an_alternation_of_all_finds_them(text: str) -> None:
    longest_first = sorted(filter(None, CONTROLS), key=len, reverse=True)
    everywhere = re.compile("|".join(map(re.escape, longest_first)))

    assert list(ControlTexts(CONTROLS).spans(text)) == [match.span() for match in everywhere.finditer(text)]


@given(st.lists(TEXTS, max_size=5))
def test_what_is_hidden_comes_back_as_plain_text(texts: list[str]) -> None:
    hiding = shield()
    rendered = "<|end|>".join(hiding.hide(text) for text in texts)
    pieces = hiding.pieces(rendered)

    assert "".join(piece.text for piece in pieces) == "<|end|>".join(texts) == hiding.reveal(rendered)
    own = sum(piece.text.count("<|end|>") for piece in pieces if piece.special)
    assert own == max(0, len(texts) - 1), "the template's"
    assert all(piece.text in CONTROLS for piece in pieces if not piece.special)


@given(DATA)
def test_no_control_text_is_left_in_nested_data_keys_included(data: Any) -> None:
    hiding = shield()
    hidden = hiding.hide_all(data)

    for text in _texts(hidden):
        assert not list(ControlTexts(CONTROLS).spans(text))
    assert [hiding.reveal(text) for text in _texts(hidden)] == list(_texts(data))


def _texts(data: Any) -> list[str]:
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        return [text for pair in data.items() for part in pair for text in _texts(part)]
    return [text for item in data for text in _texts(item)] if isinstance(data, list) else []


def test_a_placeholder_outlives_letters_of_another_case() -> None:
    hiding = shield()
    rendered = hiding.hide("a<s>b").title().upper()

    assert hiding.pieces(rendered) == (Piece("A", special=True), Piece("<s>", special=False), Piece("B", special=True))


def test_a_vocabulary_without_control_texts_hides_nothing() -> None:
    assert Shield([""], secret="1").hide("<s>") == "<s>"


def test_too_many_control_texts_are_refused_over_all_texts_together() -> None:
    hiding = shield()
    hiding.hide("<s>" * (MAX_HIDDEN - 1))
    hiding.hide("<s>")

    with pytest.raises(TooManyControlTextsError, match=str(MAX_HIDDEN)):
        hiding.hide("<s>")


@pytest.mark.parametrize("text", ["<" * 500_000, "<unused" * 70_000, "<unused59" * 50_000])
def test_thousands_of_control_texts_and_a_text_like_them_let_other_threads_run(text: str) -> None:
    """One pattern of all of them holds the interpreter for seconds here."""
    controls = ControlTexts([f"<unused{number}>" for number in range(6000)])
    turns = 0
    searching = threading.Thread(target=lambda: list(controls.spans(text)))
    began_s = time.process_time()
    searching.start()
    while searching.is_alive():
        turns += 1
        time.sleep(0.001)

    assert turns > 3
    assert time.process_time() - began_s < 5
