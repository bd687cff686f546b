"""Words for every shell. Whether the shells agree is asked of real ones in the component tests."""

import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queen_rbee.domain.nodes.shell_words import command_line, quoted
from rbee_shared.errors import InvalidRequestError

_WORDS = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]))


@given(st.lists(_WORDS, min_size=1))
def test_a_posix_shell_reads_back_every_word(words: list[str]) -> None:
    assert shlex.split(command_line(words)) == ["exec", *words]


@given(_WORDS)
@example("'\\")
def test_nothing_that_fish_or_csh_reads_otherwise_stands_inside_quotes(word: str) -> None:
    parts = re.findall(r"'([^']*)'|\\.", quoted(word))  # the second kind stands outside, and gives ""
    assert not any(character in part for part in parts for character in "\\!")


@pytest.mark.parametrize("control", ["\n", "\r", "\x00", "\x1b", "\x7f"])
def test_a_word_with_a_control_character_is_refused(control: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be said to every shell"):
        command_line(["true", f"a{control}b"])
