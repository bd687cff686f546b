"""Which of the kernel's memory kills may explain a death: those of the last seconds, and each of them one death.

The kernel says how many processes it has ended for lack of memory, and not which ones. The death of a large process
follows its sentence by seconds; a sentence of a minute ago was another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SENTENCE_S = 5.0


@dataclass(frozen=True)
class Look:
    """What `counter`, a file, said at a moment of one steady clock."""

    at_s: float
    counter: str
    kills: int


def counted_before(looks: Sequence[Look], died_at_s: float) -> dict[str, int]:
    """What each counter said when the sentence that was carried out at `died_at_s` may have been passed.

    Args:
        looks: while the process lived, oldest first.
        died_at_s: when its death was seen.
    Returns:
        Kills by counter, the one that was looked at last before the others.
    """
    before: dict[str, int] = {}
    settled: set[str] = set()
    for look in reversed(looks):
        if look.counter not in settled:
            before[look.counter] = look.kills
        if look.at_s <= died_at_s - SENTENCE_S:
            settled.add(look.counter)
    return before


def unexplained(before: int, spent: int, now: int) -> range:
    """The kills that may explain one more death, by number, as their counter counts them from 0.

    Args:
        before: how many the counter had when the sentence may have been passed.
        spent: how many of them, from the first one, explain deaths or never will.
        now: how many it has.
    """
    if spent > now:  # another control group of the same name, which counts anew
        spent = 0
    return range(max(before, spent), now)
