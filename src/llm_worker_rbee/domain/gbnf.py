"""GBNF, llama.cpp's notation for grammars, read into flat rules: a group becomes a rule of its own.

Pure and linear, and no recursion: any text of any nesting is read or refused with its line in bounded time.
"""

import re
from dataclasses import dataclass, field

from llm_worker_rbee.domain.refused_form import RefusedFormError

MAX_CHARS = 65_536
MAX_REPEATS = 2_000  # llama.cpp's own bound
MAX_NESTING = 100
_SHOWN_CHARS = 40

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#[^\r\n]*)
      | (?P<newline>\r\n|\r|\n)
      | (?P<define>::=)
      | (?P<name>[A-Za-z0-9_-]+)
      | (?P<literal>"(?:[^"\\\r\n]|\\.)*")
      | (?P<range>\[(?:[^\]\\\r\n]|\\.)*\])
      | (?P<repeat>[*+?]|\{[ ]*\d{1,6}[ ]*(?:,[ ]*(?:\d{1,6})?[ ]*)?\})
      | (?P<mark>[.()|])""",
    re.VERBOSE,
)
_CHARACTER = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)|[^\\]", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "[": "[", "]": "]"}
_MARKS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_SURROGATES = range(0xD800, 0xE000)
_BEYOND_UNICODE = 0x110000


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of these ranges of code points, or of all others."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """Whatever the rule `name` says."""

    name: str


Symbol = str | Characters | Reference


@dataclass(frozen=True, slots=True)
class Item:
    """A text, a character or a rule, so many times; no `most`: without end."""

    symbol: Symbol
    least: int = 1
    most: int | None = 1


@dataclass(slots=True)
class Rule:
    """A choice of sequences."""

    name: str
    alternatives: list[list[Item]] = field(default_factory=lambda: [[]])

    def references(self) -> list[str]:
        """The rules it names, in order."""
        items = (item.symbol for sequence in self.alternatives for item in sequence)
        return [symbol.name for symbol in items if isinstance(symbol, Reference)]


def parse_gbnf(text: str) -> dict[str, Rule]:
    """The rules by name; those that groups became have names that no rule can have.

    Raises:
        RefusedFormError: this is no GBNF, or too much of it.
    """
    if len(text) > MAX_CHARS:
        raise RefusedFormError(f"has {len(text)} characters; at most {MAX_CHARS} are read")
    reader = _Reader()
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise reader.refusal(f"cannot read {text[at : at + 20]!r}")
        reader.take(str(token.lastgroup), token.group())
        at = token.end()
    return reader.finish()


class _Reader:
    """Takes tokens; the open rule and its open groups are a stack."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._open: list[Rule] = []
        self._name: str | None = None  # read, `::=` not yet
        self._goes_on = False  # after `::=` and `|` a line may break
        self._repeatable = False
        self._line = 1

    def refusal(self, message: str) -> RefusedFormError:
        return RefusedFormError(f"line {self._line}: {message}")

    def take(self, kind: str, text: str) -> None:
        if kind == "space":
            return
        if kind == "newline":
            self._take_newline()
            return
        if not self._open:
            self._take_head(kind, text)
            return
        getattr(self, f"_take_{kind}")(text)
        self._goes_on = text == "|"

    def finish(self) -> dict[str, Rule]:
        self._take_newline()
        if self._open:
            raise self.refusal("a group or a rule is not finished")
        if not self._rules:
            raise self.refusal("there is no rule")
        for rule in reversed(self._rules.values()):  # from the inside out
            rule.alternatives = [sequence for whole in rule.alternatives for sequence in self._unfolded(whole)]
        return self._rules

    def _unfolded(self, sequence: list[Item]) -> list[list[Item]]:
        """What a group that is all of a sequence says, as sequences of the rule itself."""
        item = sequence[0] if len(sequence) == 1 else Item("")
        name = item.symbol.name if isinstance(item.symbol, Reference) else ""
        inner = self._rules.get(name) if name.startswith("(") else None
        if inner is None or item.most != 1:
            return [sequence]
        return inner.alternatives if item.least else [*inner.alternatives, []]

    def _take_newline(self) -> None:
        if self._name is not None:
            raise self.refusal(f"expected ::= after {self._name[:_SHOWN_CHARS]!r}")
        if len(self._open) == 1 and not self._goes_on:
            self._open.pop()
        self._line += 1

    def _take_head(self, kind: str, text: str) -> None:
        if kind == "name" and self._name is None:
            self._name = text
        elif kind == "define" and self._name is not None:
            self._begin(self._name)
            self._name, self._goes_on = None, True
        else:
            raise self.refusal(f"expected a rule's name and ::=, got {text[:_SHOWN_CHARS]!r}")

    def _begin(self, name: str) -> None:
        if name in self._rules:
            raise self.refusal(f"the rule {name[:_SHOWN_CHARS]!r} is there twice")
        if len(self._open) > MAX_NESTING:
            raise self.refusal(f"groups are nested more than {MAX_NESTING} deep")
        self._rules[name] = Rule(name)
        self._open.append(self._rules[name])
        self._repeatable = False

    def _take_define(self, _: str) -> None:
        raise self.refusal("::= inside a rule")

    def _take_name(self, text: str) -> None:
        self._add(Reference(text))

    def _take_literal(self, text: str) -> None:
        self._add("".join(map(chr, self._characters(text[1:-1]))))

    def _take_range(self, text: str) -> None:
        negated = text.startswith("[^")
        self._add(Characters(self._ranges(text[2 if negated else 1 : -1]), negated))

    def _take_mark(self, text: str) -> None:
        if text == ".":
            self._add(Characters((), negated=True))
        elif text == "(":
            self._begin(f"({len(self._rules)})")
        elif text == "|":
            self._open[-1].alternatives.append([])
            self._repeatable = False
        else:
            self._close_group()

    def _close_group(self) -> None:
        if len(self._open) == 1:
            raise self.refusal("a ) without its (")
        self._add(Reference(self._open.pop().name))

    def _take_repeat(self, text: str) -> None:
        if not self._repeatable:
            raise self.refusal(f"nothing stands before {text!r}")
        sequence = self._open[-1].alternatives[-1]
        least, most = _MARKS.get(text) or self._bounds(text)
        item = sequence.pop()
        self._repeatable = False
        if most != 0:
            sequence.append(Item(item.symbol, least, most))

    def _bounds(self, text: str) -> tuple[int, int | None]:
        first, comma, second = (part.strip() for part in text[1:-1].partition(","))
        least = int(first)
        most = int(second) if second else (None if comma else least)
        if max(least, most or 0) > MAX_REPEATS or (most is not None and most < least):
            raise self.refusal(f"{text} repeats more than {MAX_REPEATS} times, or less than no times")
        return least, most

    def _add(self, symbol: Symbol) -> None:
        self._open[-1].alternatives[-1].append(Item(symbol))
        self._repeatable = True

    def _ranges(self, text: str) -> tuple[tuple[int, int], ...]:
        points = self._characters(text)
        dashes = [match.group() == "-" for match in _CHARACTER.finditer(text)]
        ranges = []
        at = 0
        while at < len(points):
            spans = at + 2 < len(points) and dashes[at + 1]
            ranges.append((points[at], points[at + 2] if spans else points[at]))
            at += 3 if spans else 1
        if not ranges and not text:
            return ()
        if any(first > last for first, last in ranges):
            raise self.refusal(f"a range of [{text[:20]}] runs backwards")
        return tuple(ranges)

    def _characters(self, text: str) -> list[int]:
        return [self._code_point(match.group()) for match in _CHARACTER.finditer(text)]

    def _code_point(self, text: str) -> int:
        if not text.startswith("\\"):
            point = ord(text)
        elif text[1] in _ESCAPES:
            point = ord(_ESCAPES[text[1]])
        elif len(text) > 2:  # noqa: PLR2004 - longer than a backslash and its letter
            point = int(f"0x{text[2:]}", 0)
        else:
            raise self.refusal(f"unknown escape {text!r}")
        if point in _SURROGATES or point >= _BEYOND_UNICODE:
            raise self.refusal(f"{text!r} is no character")
        return point
