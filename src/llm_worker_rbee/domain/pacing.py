"""How much of a prompt goes into one step, so that whoever generates meanwhile hardly notices.

Pure: the times come in. A step that carries prompt tokens may take `SLOWDOWN` times as long as one that does not, and
longer the more of those who wait for their first token there are to each who generates; with nobody who generates it is
bounded only so that a cancel is heard soon.
"""

from dataclasses import dataclass

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS

SLOWDOWN = 2.0
LONGEST_STEP_S = 0.5
_WEIGHT = 0.3
_GROWTH = 2  # of the chunk from one step to the next, beside others: the cost of a larger one is a guess
_REMEMBERED_STEPS = 200  # a size that was slow once is tried again
_PROBE_STEPS = 32  # so often a step goes without a prompt, to see what is normal by now: contexts grow


@dataclass(frozen=True, slots=True)
class _Seen:
    """Steps of about so many tokens, the last one of which was number `step`."""

    rows: float
    row_s: float
    step: int

    @property
    def seconds(self) -> float:
        return self.rows * self.row_s


class Pace:
    """Learns from every step what so many rows cost. `fixed_tokens`: always that chunk, for results that repeat."""

    def __init__(self, fixed_tokens: int | None = None) -> None:
        self._fixed = fixed_tokens
        self._normal_s: dict[int, float] = {}  # of steps without a prompt, by how many generate
        self._seen: dict[int, _Seen] = {}  # of all steps by size, in powers of two
        self._step = self._beside = self._last = 0

    def chunk_tokens(self, *, generating: int, waiting: int) -> int:
        """Prompt tokens for the next step, up to `BATCH_TOKENS`, by how many sequences generate and how many wait.

        0 now and then while others generate, never twice in a row.
        """
        if self._fixed is not None:
            return self._fixed
        if not generating:
            return self._most(0, LONGEST_STEP_S, BATCH_TOKENS)
        if self._beside % _PROBE_STEPS == _PROBE_STEPS - 1 or not waiting:
            return 0
        weight = max(1.0, waiting / generating)
        usual_s = self._normal_s.get(generating) or self._expected_s(generating)
        limit_s = min(LONGEST_STEP_S, (1 + (SLOWDOWN - 1) * weight) * usual_s)
        growing = max(self._last, int(generating * weight / _GROWTH), 1)
        return self._most(generating, limit_s, min(BATCH_TOKENS, _GROWTH * growing))

    def observe(self, *, generated: int, prefilled: int, seconds: float) -> None:
        """A step of `generated` sequences' next tokens and `prefilled` tokens of prompts took so long."""
        self._step += 1
        if not prefilled:
            self._normal_s[generated] = _mean(self._normal_s.get(generated, seconds), seconds)
            self._beside += self._beside % _PROBE_STEPS != 0
        elif generated:
            self._beside += 1
            self._last = prefilled
        self._learn(generated + prefilled, seconds)

    def _learn(self, rows: int, seconds: float) -> None:
        size = rows.bit_length()
        known = self._seen.get(size, _Seen(rows, seconds / rows, 0))
        self._seen[size] = _Seen(_mean(known.rows, rows), _mean(known.row_s, seconds / rows), self._step)
        if self._step % _REMEMBERED_STEPS == 0:
            oldest = self._step - _REMEMBERED_STEPS
            self._seen = {size: seen for size, seen in self._seen.items() if seen.step > oldest}

    def _most(self, generating: int, limit_s: float, most: int) -> int:
        """The largest chunk that is expected to keep the limit; one token at least."""
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            if self._expected_s(generating + middle) <= limit_s:
                low = middle
            else:
                high = middle - 1
        return low

    def _expected_s(self, rows: int) -> float:
        """Between two sizes that were seen in proportion, beyond the largest one as if every row cost as much."""
        below: _Seen | None = None
        for size in sorted(self._seen):
            seen = self._seen[size]
            if rows <= seen.rows:
                if below is None:
                    return seen.seconds
                share = (rows - below.rows) / (seen.rows - below.rows)
                return below.seconds + share * (seen.seconds - below.seconds)
            below = seen
        return below.row_s * rows if below is not None else 0.0


def _mean(mean: float, value: float) -> float:
    return mean + _WEIGHT * (value - mean)
