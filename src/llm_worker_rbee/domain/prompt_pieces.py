"""Keeps control tokens that stand in a user's text from acting as control tokens.

Pure. Before a chat template is rendered every control text in the user's words is replaced by a placeholder nobody
can guess; afterwards the rendered text is cut there, and the pieces that came from the user are marked as plain text.
Text without control texts (nearly all) is rendered and tokenized exactly as written.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Piece:
    """Text to tokenize. `special`: control texts in it are control tokens."""

    text: str
    special: bool


@dataclass
class Shield:
    """Hides control texts. `secret` makes the placeholders unguessable; it must not occur in any text."""

    controls: Iterable[str]
    secret: str
    _hidden: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        longest_first = sorted({text for text in self.controls if text}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def hide(self, text: str) -> str:
        """`text` with every control text replaced by a placeholder."""
        return self._pattern.sub(self._placeholder, text) if self._pattern is not None else text

    def pieces(self, rendered: str) -> tuple[Piece, ...]:
        """`rendered` cut at the placeholders, which become plain text again."""
        return split_hidden(rendered, self._hidden)

    def _placeholder(self, match: "re.Match[str]") -> str:
        key = f"\ue000{self.secret}{len(self._hidden)}\ue001"
        self._hidden[key] = match.group()
        return key


def split_hidden(rendered: str, hidden: Mapping[str, str]) -> tuple[Piece, ...]:
    """Cut `rendered` at the keys of `hidden`."""
    if not hidden:
        return (Piece(rendered, special=True),)
    cut = re.compile("(" + "|".join(map(re.escape, hidden)) + ")")
    parts = (part for part in cut.split(rendered) if part)
    return tuple(Piece(hidden[part], special=False) if part in hidden else Piece(part, special=True) for part in parts)
