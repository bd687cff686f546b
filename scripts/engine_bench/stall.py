"""No stall: four answers run, then a prompt of 4,000 tokens arrives. How long do the four wait for their next token?"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine_bench.answers import Answers, Stream, percentile
from engine_bench.asking import Ask
from engine_bench.parties import Server
from engine_bench.serving import KvMode, Serving, context_of
from engine_bench.throughput import Cell
from engine_bench.words import prompts

TARGET = 3.0
_RUNNING = 4
_LONG_TOKENS = 4_000
_ENDLESS_TOKENS = 4_000
_BEFORE_TOKENS = 200
_AFTER_TOKENS = 8
_P99 = 0.99
_LET_GO_S = 1.0  # whoever was hung up on holds its slot until the server has noticed


@dataclass(frozen=True)
class Stall:
    """Gaps between tokens of the running streams, before the long prompt came and until its first token."""

    normal_gap_s: float
    normal_p99_s: float
    longest_gap_s: float
    longest_before_s: float
    prefill_s: float

    @property
    def ratio(self) -> float:
        return self.longest_gap_s / self.normal_gap_s


@dataclass(frozen=True)
class StallResult:
    """One party's rounds in one mode."""

    party: str
    kv: KvMode
    rounds: tuple[Stall, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(one.ratio for one in self.rounds)

    def facts(self) -> dict[str, Any]:
        return {
            "party": self.party,
            "kv": self.kv,
            "ratio": self.ratio,
            "target": TARGET,
            "rounds": [{**asdict(one), "ratio": one.ratio} for one in self.rounds],
        }


def stall_serving(cell: Cell) -> Serving:
    """Room for all of it, also where each slot has its own part."""
    slots = _RUNNING + 1
    return Serving(cell.model, slots, context_of(slots, _LONG_TOKENS + _AFTER_TOKENS), cell.kv, cell.threads)


def measure_stall(server: Server, seed: int) -> Stall:
    """One round."""
    running = [Ask(prompt.text, _ENDLESS_TOKENS) for prompt in prompts(_RUNNING, 32, seed)]
    long = prompts(1, _LONG_TOKENS, seed + 1_000_000)[0]
    answers = server.ask([*running, Ask(long.text, _AFTER_TOKENS, follows=(0, _BEFORE_TOKENS), ends_all=True)])
    time.sleep(_LET_GO_S)
    return stall_of(answers)


def stall_of(answers: Answers) -> Stall:
    """The last stream is the one with the long prompt."""
    *running, late = answers.streams
    came_s, answered_s = late.sent_s, late.at_s[0]
    if min(stream.at_s[-1] for stream in running) < answered_s:
        raise SystemExit("the running answers ended before the long prompt was read: nothing to compare")
    all_run_s = max(stream.at_s[0] for stream in running)
    before = [gap for stream in running for gap in stream.gaps_s(all_run_s, came_s)]
    during = _gaps_while(running, came_s, answered_s)
    return Stall(
        normal_gap_s=statistics.median(before),
        normal_p99_s=percentile(before, _P99),
        longest_before_s=max(before),
        longest_gap_s=max(during),
        prefill_s=answered_s - came_s,
    )


def _gaps_while(running: Sequence[Stream], came_s: float, answered_s: float) -> list[float]:
    """Also the gap that the first token ends: it and theirs may come from the same step, in any order."""
    gaps = [gap for stream in running for gap in stream.gaps_s(came_s, answered_s)]
    for stream in running:
        ends = [at_s for at_s in stream.at_s if at_s > answered_s][:1]
        gaps += stream.gaps_s(answered_s, ends[0]) if ends else []
    return gaps
