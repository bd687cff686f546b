"""Which slot a new request takes, and how much of what is in the cache already it can use.

Pure. The longest common beginning wins, whether its sequence is idle or still running. An idle sequence of which most
would be thrown away is shared rather than taken over; where cells cannot be shared it is left alone while another slot
is empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a sequence. `tokens`: what the cache holds of it; `used_at`: grows with each use."""

    seq_id: int
    tokens: tuple[int, ...]
    is_running: bool
    used_at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Take slot `seq_id`, and of `source`'s tokens in the cache the first `reused` (0: nothing is reused)."""

    seq_id: int
    source: int
    reused: int


def choose(prompt: tuple[int, ...], slots: Sequence[Slot], *, can_share: bool, can_trim: bool) -> Choice:
    """The slot for `prompt`; at least one is not running. One token is left to decode, for its logits.

    Args:
        can_share: two sequences may use the same cells.
        can_trim: the end of a sequence may be removed from the cache.
    """
    free = [slot for slot in slots if not slot.is_running]
    best, common = _longest(prompt, slots if can_share else free, can_trim=can_trim)
    if best is None:
        target = min(free, key=_least_missed)
        return Choice(target.seq_id, target.seq_id, 0)
    others = [slot for slot in free if slot is not best]
    empty = any(not slot.tokens for slot in others)
    keeps_most = 2 * common >= len(best.tokens)
    take_over = not best.is_running and (keeps_most or not others or (not can_share and not empty))
    if take_over:
        return Choice(best.seq_id, best.seq_id, common)
    target = min(others, key=_least_missed)
    return Choice(target.seq_id, best.seq_id, common) if can_share else Choice(target.seq_id, target.seq_id, 0)


def common_prefix(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens both begin with; compares slices, for prompts are long."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _longest(prompt: tuple[int, ...], slots: Sequence[Slot], *, can_trim: bool) -> tuple[Slot | None, int]:
    best: Slot | None = None
    longest = 0
    for slot in sorted(slots, key=lambda slot: slot.is_running):
        common = min(common_prefix(prompt, slot.tokens), len(prompt) - 1)
        if common > longest and (can_trim or common == len(slot.tokens)):
            best, longest = slot, common
    return best, longest


def _least_missed(slot: Slot) -> tuple[bool, int, int]:
    """Empty ones first, then the one that was not used for longest, then the lowest number."""
    return bool(slot.tokens), slot.used_at if slot.tokens else 0, slot.seq_id
