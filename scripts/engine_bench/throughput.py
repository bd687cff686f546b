"""Many streams at once: everybody who is wanted, side by side in the same rounds, and what that comes to.

All parties of a cell stand ready at the same time and take turns, in the opposite order every other round: whatever
slows the machine down for a while slows each of them down.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine_bench.answers import Answers, ratio, summary
from engine_bench.memory import Memory, memory_of
from engine_bench.models import Shape
from engine_bench.parties import Party, Server
from engine_bench.serving import KvMode, Serving, context_of
from engine_bench.words import prompts

PROMPT_TOKENS = 32
_WARM_UP_TOKENS = 8
_SLACK_TOKENS = 32  # the worker lets nobody join a cache that its running answers are about to fill
_TARGETS: tuple[tuple[str, str, float, frozenset[int] | None], ...] = (
    ("engine", "bare", 0.97, None),
    ("http", "engine", 0.9, None),
    ("http", "peer", 1.0, frozenset({1, 8, 32})),
)

Starters = dict[str, Callable[[Serving], AbstractContextManager[Party]]]
"""How each party is started, in the order in which they take their turns."""


@dataclass(frozen=True)
class Cell:
    """What is measured together. `tokens` of each answer."""

    shape: Shape
    model: Path
    kv: KvMode
    streams: int
    tokens: int
    threads: int

    def serving(self) -> Serving:
        n_ctx = context_of(self.streams, PROMPT_TOKENS + self.tokens + _SLACK_TOKENS)
        return Serving(self.model, self.streams, n_ctx, self.kv, self.threads)


@dataclass(frozen=True)
class Ratio:
    """`ours` against `theirs`: while all streams run, and over the whole time. `target` None: only told."""

    ours: str
    theirs: str
    running: float
    whole: float
    target: float | None


@dataclass(frozen=True)
class CellResult:
    """Everybody's rounds, by party."""

    cell: Cell
    rounds: dict[str, list[Answers]]
    memory: Memory | None

    def ratios(self) -> Iterator[Ratio]:
        for ours, theirs, target, judged in _TARGETS:
            if ours in self.rounds and theirs in self.rounds:
                pair = (self.rounds[ours], self.rounds[theirs])
                yield Ratio(
                    ours,
                    theirs,
                    running=ratio(*pair, lambda answers: answers.tok_s),
                    whole=ratio(*pair, lambda answers: answers.whole_tok_s),
                    target=target if judged is None or self.cell.streams in judged else None,
                )

    def facts(self) -> dict[str, Any]:
        """For JSON: every value."""
        return {
            "shape": self.cell.shape.name,
            "kv": self.cell.kv,
            "streams": self.cell.streams,
            "tokens": self.cell.tokens,
            "n_ctx": self.cell.serving().n_ctx,
            "parties": {name: _party_facts(rounds) for name, rounds in self.rounds.items()},
            "ratios": [asdict(one) for one in self.ratios()],
            "memory": self.memory.facts() if self.memory is not None else None,
        }


def measure(cell: Cell, starters: Starters, rounds: int, *, with_memory: bool) -> CellResult:
    """Start all, warm up all, let them take turns."""
    with ExitStack() as stack:
        parties = {name: stack.enter_context(start(cell.serving())) for name, start in starters.items()}
        for party in parties.values():
            party.answer(prompts(cell.streams, PROMPT_TOKENS, seed=0), _WARM_UP_TOKENS)
        done: dict[str, list[Answers]] = {name: [] for name in parties}
        for number in range(1, rounds + 1):
            asked = prompts(cell.streams, PROMPT_TOKENS, seed=number)
            for name in sorted(parties, key=list(parties).index, reverse=number % 2 == 0):
                done[name].append(parties[name].answer(asked, cell.tokens))
        worker = parties.get("http") if with_memory else None
        memory = memory_of(worker, cell.shape, cell.serving()) if isinstance(worker, Server) else None
    return CellResult(cell, done, memory)


def _party_facts(rounds: Sequence[Answers]) -> dict[str, Any]:
    return {
        **asdict(summary(rounds)),
        "rounds": [
            {
                "tok_s": answers.tok_s,
                "whole_tok_s": answers.whole_tok_s,
                "together_share": answers.together_share,
                "longest_gap_s": answers.longest_gap_s,
                "ttft_s": [stream.ttft_s for stream in answers.streams],
            }
            for answers in rounds
        ],
    }
