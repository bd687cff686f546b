"""Keeps control tokens that stand in a user's text from acting as control tokens.

Pure. Before a chat template is rendered every control text in the user's words is replaced by a placeholder nobody
can guess; afterwards the rendered text is cut there, and the pieces that came from the user are marked as plain text.
Text without control texts (nearly all) is rendered and tokenized exactly as written. The time is linear in the text
whatever stands in it, and no step holds the interpreter for long.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# each is tokenized by itself, and its neighbours too
MAX_HIDDEN = 4096


class TooManyControlTextsError(Exception):
    """A conversation spells more control texts than any honest one does."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text to tokenize. `special`: control texts in it are control tokens."""

    text: str
    special: bool


class ControlTexts:
    """A vocabulary's control texts, made ready once to be looked for in many texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        # character to the node of what may follow; "" marks the end of a control text
        self._root: dict[str, Any] = {}
        for text in texts:
            node = self._root
            for character in text:
                node = node.setdefault(character, {})
            if text:
                node[""] = True
        # not one pattern of all texts: with thousands of them it takes seconds for a text of nothing but "<"
        first = "".join(re.escape(character) for character in self._root)
        self._first = re.compile(f"[{first}]") if first else None

    def spans(self, text: str) -> Iterable[tuple[int, int]]:
        """Where control texts stand in `text`: the longest at each place, none inside another."""
        free = 0
        for match in self._first.finditer(text) if self._first is not None else ():
            start = match.start()
            if start >= free and (end := self._end(text, start)):
                free = end
                yield start, end

    def _end(self, text: str, start: int) -> int:
        """The end of the longest control text that begins at `start`; 0 when none does."""
        node, end, at = self._root, 0, start
        while at < len(text) and (following := node.get(text[at])) is not None:
            node = following
            at += 1
            if "" in node:
                end = at
        return end


@dataclass
class Shield:
    """Hides control texts. `secret` makes the placeholders unguessable; it must not occur in any text.

    With a secret of digits a placeholder outlives a template that changes the case of letters.
    """

    controls: Iterable[str] | ControlTexts
    secret: str
    _hidden: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self._texts = self.controls if isinstance(self.controls, ControlTexts) else ControlTexts(self.controls)
        self._cut = re.compile(f"\ue000{re.escape(self.secret)}\ue002([0-9]+)\ue001")

    def hide(self, text: str) -> str:
        """`text` with every control text replaced by a placeholder.

        Raises:
            TooManyControlTextsError: there are more than `MAX_HIDDEN` in all that was hidden.
        """
        parts, kept = [], 0
        for start, end in self._texts.spans(text):
            parts += [text[kept:start], self._placeholder(text[start:end])]
            kept = end
        return "".join((*parts, text[kept:])) if parts else text

    def hide_all(self, value: Any) -> Any:
        """A copy of JSON-like data with all control texts hidden, also in keys. Tuples become lists."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, dict):
            return {self.hide_all(key): self.hide_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide_all(item) for item in value]
        return value

    def pieces(self, rendered: str) -> tuple[Piece, ...]:
        """`rendered` cut at the placeholders, which become plain text again."""
        texts = list(self._hidden)
        # every second part is the number of a hidden text
        parts = self._cut.split(rendered)
        found = (
            Piece(texts[int(part)], special=False) if at % 2 else Piece(part, special=True)
            for at, part in enumerate(parts)
        )
        return tuple(piece for piece in found if piece.text)

    def reveal(self, rendered: str) -> str:
        """`rendered` as a person may read it."""
        return "".join(piece.text for piece in self.pieces(rendered))

    def _placeholder(self, text: str) -> str:
        self._count += 1
        if self._count > MAX_HIDDEN:
            raise TooManyControlTextsError(f"more than {MAX_HIDDEN} control texts of the model")
        number = self._hidden.setdefault(text, len(self._hidden))
        return f"\ue000{self.secret}\ue002{number}\ue001"
