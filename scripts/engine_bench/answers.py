"""What came of asking: when each stream's tokens arrived, and the figures that follow from it.

Pure. Times are seconds of one clock; a stream's tokens may arrive several at a time.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_P99 = 0.99


@dataclass(frozen=True)
class Stream:
    """One answer. `frames[n]` pieces of text came at `at_s[n]`; `told`: the end of what was received, or all of it."""

    sent_s: float
    at_s: tuple[float, ...]
    frames: tuple[int, ...]
    tokens: int
    told: str = ""

    @property
    def ttft_s(self) -> float:
        return self.at_s[0] - self.sent_s

    def gaps_s(self, after_s: float = 0.0, before_s: float = float("inf")) -> list[float]:
        """Times between two arrivals, of those that end within the window."""
        return [later - earlier for earlier, later in pairwise(self.at_s) if after_s < later <= before_s]

    def tokens_between(self, after_s: float, until_s: float) -> float:
        """Tokens that came after the one time and not after the other."""
        came = sum(count for at_s, count in zip(self.at_s, self.frames, strict=True) if after_s < at_s <= until_s)
        return came * self.tokens / sum(self.frames)


@dataclass(frozen=True)
class Answers:
    """All streams of one round. `cpu_s` of whoever took the tokens, within `wall_s`."""

    streams: tuple[Stream, ...]
    cpu_s: float
    wall_s: float

    @property
    def tokens(self) -> int:
        return sum(stream.tokens for stream in self.streams)

    @property
    def whole_tok_s(self) -> float:
        """All tokens over all the time from the first request to the last token."""
        began_s = min(stream.sent_s for stream in self.streams)
        return self.tokens / (max(stream.at_s[-1] for stream in self.streams) - began_s)

    @property
    def tok_s(self) -> float:
        """While every stream was running; of the whole time where they never ran all at once."""
        after_s, until_s = self._all_run_s
        return self._tokens_together / (until_s - after_s) if until_s > after_s else self.whole_tok_s

    @property
    def together_share(self) -> float:
        """Of all tokens, those that came while every stream was running: what `tok_s` is judged by."""
        return self._tokens_together / self.tokens

    @property
    def _all_run_s(self) -> tuple[float, float]:
        """From the last stream's first token to the first one's last token."""
        return max(stream.at_s[0] for stream in self.streams), min(stream.at_s[-1] for stream in self.streams)

    @property
    def _tokens_together(self) -> float:
        return sum(stream.tokens_between(*self._all_run_s) for stream in self.streams)

    @property
    def longest_gap_s(self) -> float:
        return max((gap for stream in self.streams for gap in stream.gaps_s()), default=0.0)


@dataclass(frozen=True)
class Summary:
    """One party in one cell, over all rounds: medians of the speeds, all first tokens together, the longest gap."""

    tok_s: float
    whole_tok_s: float
    together_share: float
    ttft_p50_s: float
    ttft_p99_s: float
    longest_gap_s: float
    taker_cpu_share: float
    taker_cpu_us_per_token: float


def summary(rounds: Sequence[Answers]) -> Summary:
    """Over at least one round."""
    ttft_s = [stream.ttft_s for answers in rounds for stream in answers.streams]
    cpu_s = sum(answers.cpu_s for answers in rounds)
    return Summary(
        tok_s=statistics.median(answers.tok_s for answers in rounds),
        whole_tok_s=statistics.median(answers.whole_tok_s for answers in rounds),
        together_share=min(answers.together_share for answers in rounds),
        ttft_p50_s=percentile(ttft_s, 0.5),
        ttft_p99_s=percentile(ttft_s, _P99),
        longest_gap_s=max(answers.longest_gap_s for answers in rounds),
        taker_cpu_share=cpu_s / sum(answers.wall_s for answers in rounds),
        taker_cpu_us_per_token=cpu_s / sum(answers.tokens for answers in rounds) * 1e6,
    )


def ratio(ours: Sequence[Answers], theirs: Sequence[Answers], figure: Callable[[Answers], float]) -> float:
    """Median of the rounds' own ratios: what slows the machine down for a round slows both."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(figure(mine) / figure(other) for mine, other in pairs)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def answers_of(facts: dict[str, Any], tokens: Sequence[int]) -> Answers:
    """From what a child process wrote as JSON; `tokens[n]` is what stream n has."""
    streams = [
        Stream(one["sent_s"], tuple(one["at_s"]), tuple(one["frames"]), count, one.get("told", ""))
        for one, count in zip(facts["streams"], tokens, strict=True)
    ]
    return Answers(tuple(streams), facts["cpu_s"], facts["wall_s"])
