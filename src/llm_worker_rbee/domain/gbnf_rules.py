"""What a grammar's rules amount to: which can be matched as one pattern, and why a grammar is refused.

Pure and linear. An accepted grammar has a root, names only rules that it has, and every rule that the root reaches
has a sentence of finite length and does not begin with itself.
"""

from collections.abc import Mapping

from llm_worker_rbee.domain.gbnf import Item, Reference, Rule
from llm_worker_rbee.domain.horn import provable
from llm_worker_rbee.domain.refused_form import RefusedFormError

ROOT = "root"
MAX_DEPTH = 300  # llguidance descends from rule to rule on the stack, and overruns it at some thousands
_SHOWN_CHARS = 40


def reachable_rules(rules: Mapping[str, Rule]) -> list[Rule]:
    """The rules that the root needs, itself first.

    Raises:
        RefusedFormError: no root, an unknown rule, left recursion, a rule without end, or one too deep.
    """
    if ROOT not in rules:
        raise RefusedFormError(f"there is no rule {ROOT!r}", (ROOT,))
    for rule in rules.values():
        unknown = [name for name in rule.references() if name not in rules]
        if unknown:
            raise RefusedFormError(f"there is no rule {_shown(unknown[0])}", _named(unknown[0]))
    found = _visit(rules)
    _require_ends(found)
    _require_no_left_recursion(found)
    return found


def regular_rules(rules: list[Rule]) -> set[str]:
    """The rules that are one pattern: they name only such rules, or themselves at their ends."""
    return provable((rule.name, frozenset(rule.references()) - _own_tail(rule)) for rule in rules)


def is_tail(rule: Rule, sequence: list[Item]) -> bool:
    """Whether the sequence ends with its own rule, once."""
    return bool(sequence) and sequence[-1] == Item(Reference(rule.name))


def _own_tail(rule: Rule) -> frozenset[str]:
    bodies = [sequence[:-1] if is_tail(rule, sequence) else sequence for sequence in rule.alternatives]
    own = Reference(rule.name)
    elsewhere = any(item.symbol == own for body in bodies for item in body)
    return frozenset() if elsewhere else frozenset({rule.name})


def _visit(rules: Mapping[str, Rule]) -> list[Rule]:
    """Depth first, in the order in which llguidance will descend."""
    found: dict[str, Rule] = {ROOT: rules[ROOT]}
    path = [iter(rules[ROOT].references())]
    while path:
        name = next(path[-1], None)
        if name is None:
            path.pop()
        elif name not in found:
            found[name] = rules[name]
            path.append(iter(rules[name].references()))
            if len(path) > MAX_DEPTH:
                raise RefusedFormError(f"rules and groups are nested more than {MAX_DEPTH} deep")
    return list(found.values())


def _needed(sequence: list[Item]) -> frozenset[str]:
    return frozenset(item.symbol.name for item in sequence if isinstance(item.symbol, Reference) and item.least)


def _require_ends(rules: list[Rule]) -> None:
    ending = provable((rule.name, _needed(sequence)) for rule in rules for sequence in rule.alternatives)
    endless = [rule.name for rule in rules if rule.name not in ending]
    if endless:
        raise RefusedFormError(f"the rule {_shown(endless[0])} has no sentence of finite length", _named(endless[0]))


def _require_no_left_recursion(rules: list[Rule]) -> None:
    empty = provable(
        (rule.name, _needed(sequence))
        for rule in rules
        for sequence in rule.alternatives
        if all(isinstance(item.symbol, Reference) or not item.least or item.symbol == "" for item in sequence)
    )
    first = {rule.name: _first(rule, empty) for rule in rules}
    # backwards: a rule is safe when all that it can begin with is safe
    safe = provable((name, begins) for name, begins in first.items())
    name = next((name for name in first if name not in safe), None)
    seen = set()
    while name is not None:
        if name in seen:
            raise RefusedFormError(f"the rule {_shown(name)} can begin with itself (left recursion)", _named(name))
        seen.add(name)
        name = next(other for other in first[name] if other not in safe)


def _first(rule: Rule, empty: set[str]) -> frozenset[str]:
    names = set()
    for sequence in rule.alternatives:
        for item in sequence:
            if isinstance(item.symbol, Reference):
                names.add(item.symbol.name)
                if item.least and item.symbol.name not in empty:
                    break
            elif item.least and item.symbol != "":
                break
    return frozenset(names)


def _shown(name: str) -> str:
    return "of a group" if name.startswith("(") else repr(name[:_SHOWN_CHARS])


def _named(name: str) -> tuple[str, ...]:
    return () if name.startswith("(") else (name[:_SHOWN_CHARS],)
