"""Where sequences lie in the cache: one slot each, and what idle slots still hold for whoever begins alike.

Everything that is done to the cache is done here, and counted.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_worker_rbee.domain.kv_ledger import KvLedger
from llm_worker_rbee.domain.prefix_cache import Choice, Slot, choose
from llm_worker_rbee.engine.llama import LlamaContext


@dataclass(slots=True)
class _Place:
    """`tokens`: while idle what the cache holds; while running what it was begun with."""

    seq_id: int
    tokens: tuple[int, ...] = ()
    is_running: bool = False
    used_at: int = 0


@dataclass
class Slots:
    """The context's sequences. `room`: cells that are free; without end where each slot has its own part."""

    context: LlamaContext
    _places: list[_Place] = field(init=False)
    _ledger: KvLedger = field(init=False)
    _uses: "itertools.count[int]" = field(init=False)

    def __post_init__(self) -> None:
        self._places = [_Place(seq_id) for seq_id in range(self.context.n_seq_max)]
        self._ledger = KvLedger(self.context.n_ctx)
        self._uses = itertools.count(1)

    @property
    def room(self) -> int:
        return self._ledger.free if self.context.is_unified else self.context.n_ctx

    @property
    def cells_used(self) -> int:
        return self._ledger.used

    def take(self, tokens: tuple[int, ...], *, usable: int) -> tuple[int, int]:
        """A free slot for a sequence of `tokens`: its id, and how many of the first `usable` are in the cache."""
        choice = choose(
            tokens[:usable],
            [Slot(place.seq_id, self._held(place), place.is_running, place.used_at) for place in self._places],
            can_share=self.context.can_share,
            can_trim=self.context.can_trim,
        )
        reused = self._prepare(choice)
        place = self._places[choice.seq_id]
        place.tokens, place.is_running, place.used_at = tokens, True, next(self._uses)
        return choice.seq_id, reused

    def extend(self, seq_id: int, tokens: int) -> None:
        """Tokens of a running sequence were decoded."""
        self._ledger.extend(seq_id, tokens)

    def empty(self, seq_id: int) -> None:
        """A running sequence gives its cells back and keeps its slot."""
        self.context.forget(seq_id)
        self._ledger.trim(seq_id, 0)

    def leave(self, seq_id: int, tokens: Sequence[int]) -> None:
        """A sequence has ended; `tokens` of it stay in the cache."""
        place = self._places[seq_id]
        place.is_running, place.tokens, place.used_at = False, tuple(tokens), next(self._uses)
        if not tokens:
            self.empty(seq_id)

    def make_room(self, cells: int) -> None:
        """Drop idle sequences, the one that was not used for longest first, until there is room or none is left."""
        while self.room < cells and self._drop_oldest():
            pass

    def drop_idle(self) -> bool:
        """Drop all idle sequences; False when there was none."""
        dropped = False
        while self._drop_oldest():
            dropped = True
        return dropped

    def _drop_oldest(self) -> bool:
        idle = [place for place in self._places if not place.is_running and place.tokens]
        if not idle:
            return False
        oldest = min(idle, key=lambda place: place.used_at)
        oldest.tokens = ()
        self.empty(oldest.seq_id)
        return True

    def _held(self, place: _Place) -> tuple[int, ...]:
        if not place.is_running:
            return place.tokens
        return place.tokens[: self._ledger.held(place.seq_id)]

    def _prepare(self, choice: Choice) -> int:
        """Bring the slot's part of the cache to what is reused. Returns how much that really is."""
        if choice.source != choice.seq_id:
            self.empty(choice.seq_id)
            self.context.share(choice.source, choice.seq_id, choice.reused)
            self._ledger.share(choice.source, choice.seq_id, choice.reused)
            return choice.reused
        kept = choice.reused
        if kept < self._ledger.held(choice.seq_id) and not self.context.keep(choice.seq_id, kept):
            kept = 0
        self._ledger.trim(choice.seq_id, kept)
        return kept
