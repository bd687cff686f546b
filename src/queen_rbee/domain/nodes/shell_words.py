"""A command line that every login shell reads the same: sh, bash, dash, zsh, fish, csh and tcsh. Pure.

Single quotes are the same everywhere except for three characters: the quote itself, the backslash, which fish reads
inside quotes, and the exclamation mark, which csh does. Those stand outside, each behind a backslash.
"""

import re
from collections.abc import Sequence

from rbee_shared.errors import InvalidRequestError

_OUTSIDE = re.compile(r"['\\!]")
_NO_WORD = re.compile("[\x00-\x1f\x7f]")


def command_line(argv: Sequence[str]) -> str:
    """`exec` with these words, so that the shell gives way to the program.

    Raises:
        InvalidRequestError: a word has a line break or another control character, which csh cannot be given.
    """
    return " ".join(["exec", *map(quoted, argv)])


def quoted(word: str) -> str:
    """`word` as every shell reads it. Raises as `command_line` does."""
    if _NO_WORD.search(word):
        raise InvalidRequestError(f"{word!r} cannot be said to every shell", hint="Use names without line breaks.")
    return "'" + _OUTSIDE.sub(lambda found: f"'\\{found[0]}'", word) + "'"
