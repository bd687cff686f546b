"""A GBNF grammar in the notation of llguidance.

Every answer that the result allows is a sentence of the grammar. What needs no recursion is matched as one pattern,
exactly. Beside a recursive rule a pattern takes all it can: a sentence in which it should have stopped earlier is not
found.
"""

import json

from llm_worker_rbee.domain.gbnf import Characters, Item, Reference, Rule, parse_gbnf
from llm_worker_rbee.domain.gbnf_rules import ROOT, is_tail, reachable_rules, regular_rules


def gbnf_to_lark(text: str) -> str:
    """The same grammar as Lark's `start`.

    Raises:
        RefusedFormError: the text is no grammar that can be followed.
    """
    rules = reachable_rules(parse_gbnf(text))
    return "\n".join(_Writer(rules).lines()) + "\n"


class _Writer:
    """Names of our own throughout: a user's could be a word of Lark's."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._regular = regular_rules(rules)
        self._names = {
            rule.name: f"T{number}" if rule.name in self._regular else f"r{number}" for number, rule in enumerate(rules)
        }
        self._patterns: list[str] = []

    def lines(self) -> list[str]:
        """`start` first. Patterns found inside recursive rules come last."""
        written = [f"start: {self._names[ROOT]}"]
        for rule in self._rules:
            body = self._pattern(rule) if rule.name in self._regular else self._recursive(rule)
            written.append(f"{self._names[rule.name]}: {body}")
        return written + self._patterns

    def _pattern(self, rule: Rule) -> str:
        ends = [self._sequence(sequence) for sequence in rule.alternatives if not is_tail(rule, sequence)]
        loops = [self._sequence(sequence[:-1]) for sequence in rule.alternatives if is_tail(rule, sequence)]
        choice = " | ".join(ends)
        return f"({' | '.join(loops)})* ({choice})" if loops else choice

    def _recursive(self, rule: Rule) -> str:
        whole = [sequence for sequence in rule.alternatives if self._is_pattern(sequence)]
        mixed = [self._mixed(sequence) for sequence in rule.alternatives if not self._is_pattern(sequence)]
        if whole:
            mixed.insert(0, self._new_pattern(" | ".join(map(self._sequence, whole))))
        return " | ".join(mixed)

    def _mixed(self, sequence: list[Item]) -> str:
        parts: list[str] = []
        run: list[Item] = []
        for item in sequence:
            if self._is_pattern([item]):
                run.append(item)
                continue
            parts += [self._new_pattern(self._sequence(run))] if run else []
            parts.append(self._item(item))
            run = []
        parts += [self._new_pattern(self._sequence(run))] if run else []
        return " ".join(parts)

    def _is_pattern(self, sequence: list[Item]) -> bool:
        return all(not isinstance(item.symbol, Reference) or item.symbol.name in self._regular for item in sequence)

    def _new_pattern(self, body: str) -> str:
        if body == '""':
            return body
        name = f"X{len(self._patterns)}"
        self._patterns.append(f"{name}: {body}")
        return name

    def _sequence(self, sequence: list[Item]) -> str:
        return " ".join(map(self._item, sequence)) or '""'

    def _item(self, item: Item) -> str:
        symbol = item.symbol
        if isinstance(symbol, Reference):
            text = self._names[symbol.name]
        else:
            text = _range(symbol) if isinstance(symbol, Characters) else _literal(symbol)
        return text + _repeat(item)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _range(symbol: Characters) -> str:
    if not symbol.ranges:
        return "/(?s:.)/" if symbol.negated else "/[^\\x{0}-\\x{10FFFF}]/"
    spans = "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in symbol.ranges)
    return f"/[{'^' if symbol.negated else ''}{spans}]/"


def _repeat(item: Item) -> str:
    marks: dict[tuple[int, int | None], str] = {(1, 1): "", (0, None): "*", (1, None): "+", (0, 1): "?"}
    most = "" if item.most is None else item.most
    return marks.get((item.least, item.most), f"{{{item.least},{most}}}")
