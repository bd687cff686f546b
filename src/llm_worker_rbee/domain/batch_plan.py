"""Which tokens of which sequences go into the next decode step, and who gives way when the cache is full.

Pure. Every sequence that generates gets its one token first, so that a long prompt delays nobody; prompts share what
is left of the batch in chunks, in the order in which they came. A prompt begins only when all of it fits, so that two
of them never hold half the cache each. When those that generate cannot go on, the youngest sequence gives its cells
back and waits; it is computed again later, without choosing any of its tokens anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BATCH_TOKENS = 512
"""Most tokens of one step: more make no prompt faster, and hold everybody else up."""

GROWTH_TOKENS = 32
"""Room for each running sequence without which nobody joins: who joins a full cache is thrown out a step later."""


class Running(NamedTuple):
    """A sequence that is not complete. `age`: smaller came earlier. `held`, `pending`: tokens in the cache, and not.

    `begun`: it has been in a step; what it holds until then it shares with another.
    """

    key: int
    age: int
    held: int
    pending: int
    begun: bool

    @property
    def generates(self) -> bool:
        return self.pending == 1


@dataclass(frozen=True, slots=True)
class Step:
    """Decode these tokens: (key, number of its next tokens)."""

    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Preempt:
    """This sequence gives its cells back and waits; then plan again."""

    key: int


@dataclass(frozen=True, slots=True)
class Overflow:
    """This sequence is alone and still has no room: its context is full."""

    key: int


def plan(running: Iterable[Running], *, room: int, chunk_tokens: int) -> Step | Preempt | Overflow:
    """The next step of `running`, of which there is at least one.

    Args:
        running: every sequence that is not complete.
        room: free cells of the cache.
        chunk_tokens: most tokens of prompts in this step; 0 only where somebody generates.
    """
    ordered = sorted(running, key=lambda one: one.age)
    generating = [one for one in ordered if one.generates]
    if len(generating) <= room:
        budget = min(chunk_tokens, BATCH_TOKENS - len(generating))
        prompts = _prefill(ordered, room=room - len(generating), budget=budget)
        if parts := [*((one.key, 1) for one in generating), *prompts]:
            return Step(tuple(parts))
    return _make_room(ordered)


def wanted_room(running: Sequence[Running]) -> int:
    """Free cells with which every one of `running` could go on."""
    growth = GROWTH_TOKENS * len(running) if any(not one.begun for one in running) else 0
    return sum(one.pending for one in running) + growth


def _prefill(ordered: Sequence[Running], *, room: int, budget: int) -> list[tuple[int, int]]:
    """Chunks of prompts, oldest first. A prompt that has begun has the rest of it reserved."""
    holders = sum(1 for one in ordered if one.begun)
    parts = []
    may_begin = True
    for one in ordered:
        if one.generates:
            continue
        if not one.begun:
            growth = GROWTH_TOKENS * (holders + 1) if holders else 0
            may_begin = may_begin and one.pending + growth <= room
            if not may_begin:
                continue
            holders += 1
        if (taken := min(one.pending, budget, room)) > 0:
            parts.append((one.key, taken))
            budget -= taken
        room = max(0, room - one.pending)
    return parts


def _make_room(ordered: Sequence[Running]) -> Preempt | Overflow:
    holders = [one for one in ordered if one.held]
    if len(holders) > 1:
        return Preempt(holders[-1].key)
    return Overflow((holders or ordered)[0].key)
