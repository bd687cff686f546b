"""What follows from clauses "the head holds if all of the body holds". Pure, and linear in the size of the clauses."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import TypeVar

FactT = TypeVar("FactT", bound=Hashable)


def provable(clauses: Iterable[tuple[FactT, frozenset[FactT]]]) -> set[FactT]:
    """Every head that can be proven; what only rests on itself cannot."""
    heads: list[FactT] = []
    missing: list[int] = []
    waiting: defaultdict[FactT, list[int]] = defaultdict(list)
    ready: list[FactT] = []
    for number, (head, body) in enumerate(clauses):
        heads.append(head)
        missing.append(len(body))
        for fact in body:
            waiting[fact].append(number)
        if not body:
            ready.append(head)
    proven: set[FactT] = set()
    while ready:
        fact = ready.pop()
        if fact in proven:
            continue
        proven.add(fact)
        for number in waiting[fact]:
            missing[number] -= 1
            if not missing[number]:
                ready.append(heads[number])
    return proven
