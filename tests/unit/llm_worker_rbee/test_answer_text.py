"""Detokenizing and stop strings: however a text is cut into byte tokens, the same text comes out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.detokenize import AnswerText, Visible
from llm_worker_rbee.domain.stopping import StopMatcher


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the borders."""
    edges = [0, *sorted({border % (len(data) + 1) for border in borders}), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def run(pieces: list[bytes], stop: list[str]) -> tuple[list[Visible], str | None]:
    text = AnswerText(stop)
    shown = []
    for token, piece in enumerate(pieces):
        shown.append(text.push(token, piece))
        if text.stop_matched is not None:
            break
    shown.append(text.flush())
    return [visible for visible in shown if visible is not None], text.stop_matched


def up_to_first_match(text: str, stop: list[str]) -> str:
    """The definition: the match that is complete first, the longest of those."""
    found = [(at + len(string), at) for string in stop if (at := text.find(string)) >= 0]
    return text[: min(found)[1]] if found else text


few_letters = st.text(alphabet="abé🐝\u2028", max_size=40)


@given(few_letters, st.lists(st.integers(0, 200)), st.lists(st.text("abé🐝", min_size=1, max_size=4), max_size=4))
def test_any_cut_of_any_text_shows_the_text_up_to_the_first_stop_string(
    text: str, borders: list[int], stop: list[str]
) -> None:
    shown, matched = run(cut(text.encode(), borders), stop)

    assert "".join(visible.text for visible in shown) == up_to_first_match(text, stop)
    assert (matched is not None) == any(string in text for string in stop)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200)))
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, borders: list[int]) -> None:
    shown, _ = run(cut(data, borders), [])

    assert "".join(visible.text for visible in shown) == data.decode(errors="replace")


@given(few_letters, st.lists(st.integers(0, 200)), st.lists(st.text("abé🐝", min_size=1, max_size=4), max_size=3))
def test_every_id_is_told_once_in_order_with_the_text_that_shows_it_first(
    text: str, borders: list[int], stop: list[str]
) -> None:
    pieces = cut(text.encode(), borders)
    shown, matched = run(pieces, stop)
    ids = [token for visible in shown for token in visible.ids]

    assert ids == list(range(len(ids)))
    if matched is None:
        assert len(ids) >= len([piece for piece in pieces if piece]) - 1 or not text
    length = 0
    for visible in shown:
        length += len(visible.text)
        for token in visible.ids:
            begins_at = len(b"".join(pieces[:token]).decode(errors="ignore"))
            assert begins_at < length, "its text begins in this frame or an earlier one"
            assert begins_at >= length - len(visible.text), "and in no earlier one"


def test_a_character_of_several_tokens_is_shown_whole_with_all_its_ids() -> None:
    bee = "🐝".encode()
    text = AnswerText()

    assert [text.push(token, bee[token : token + 1]) for token in range(3)] == [None] * 3
    assert text.push(3, bee[3:]) == Visible("🐝", (0, 1, 2, 3))


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    text = AnswerText()
    text.push(0, b"a")
    text.push(1, b"\xf0\x9f")

    assert text.flush() == Visible("\ufffd", (1,))


def test_what_is_held_back_comes_with_an_unfinished_character() -> None:
    text = AnswerText(["<end>", "\ufffdz"])
    assert text.push(0, b"<e") is None
    assert text.push(1, b"\xf0\x9f") is None

    assert text.flush() == Visible("<e\ufffd", (0, 1))


def test_a_token_without_text_is_told_with_the_next_text() -> None:
    text = AnswerText()

    assert text.push(7, b"") is None
    assert text.push(8, b"x") == Visible("x", (7, 8))


@pytest.mark.parametrize(
    ("fed", "stop", "shown", "matched"),
    [
        pytest.param(["ab", "cd"], ["bc"], ["a", ""], "bc", id="across a border"),
        pytest.param(["one <", "b> two"], ["<end>"], ["one ", "<b> two"], None, id="only its beginning"),
        pytest.param(["abcd"], ["abcd", "bc"], ["a"], "bc", id="complete first wins"),
        pytest.param(["xabc"], ["bc", "abc"], ["x"], "abc", id="the longest of those complete at once"),
        pytest.param(["aab"], ["ab"], ["a"], "ab", id="a false start"),
    ],
)
def test_stop_matcher(fed: list[str], stop: list[str], shown: list[str], matched: str | None) -> None:
    matcher = StopMatcher(stop)

    assert [matcher.feed(text) for text in fed] == shown
    assert matcher.matched == matched


def test_what_was_held_back_is_text_after_all() -> None:
    matcher = StopMatcher(["<end>"])

    assert matcher.feed("bye <en") == "bye "
    assert matcher.flush() == "<en"


def test_text_that_was_shown_before_is_not_shown_again() -> None:
    text = AnswerText(["<end>"])
    assert text.push(1, b"<e") is None
    assert text.push(2, b"n\xc3") is None

    assert text.was_shown(2)
    assert text.push(3, b"\xa9") == Visible("n\u00e9", (2, 3))


def test_what_only_the_end_has_shown_is_conceded_too() -> None:
    for stop in ((), ("<end>",)):
        text = AnswerText(stop)
        assert text.push(1, b"\xe2") is None
        assert text.was_shown(1)
        assert text.push(2, b"a") == Visible("a", (2,))
        assert text.flush() is None


def test_more_than_is_held_back_was_not_shown() -> None:
    for stop in ((), ("<end>",)):
        text = AnswerText(stop)
        assert text.push(1, b"a<") is not None
        assert not text.was_shown(3)
