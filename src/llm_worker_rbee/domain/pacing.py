"""How much of a prompt goes into one step, so that whoever generates meanwhile hardly notices.

Pure: the times come in. A step that carries prompt tokens may take `SLOWDOWN` times as long as one that does not, and
longer the more of those who wait for their first token there are to each who generates; with nobody who generates it is
bounded only so that a cancel is heard soon.
"""

from dataclasses import dataclass

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS

SLOWDOWN = 2.0
LONGEST_STEP_S = 0.5
_FASTER, _SLOWER = 0.5, 0.1  # weights of a step: what holds one up now and then is no property of its size
_REMEMBERED_STEPS = 200  # a size that was slow once is tried again


@dataclass(frozen=True, slots=True)
class _Seen:
    """Steps of about `rows` tokens, the last one of which was number `step`."""

    rows: int
    row_s: float
    step: int

    @property
    def seconds(self) -> float:
        return self.rows * self.row_s


class Pace:
    """Learns from every step what so many rows cost. `fixed_tokens`: always that chunk, for results that repeat."""

    def __init__(self, fixed_tokens: int | None = None) -> None:
        self._fixed = fixed_tokens
        self._seen: dict[int, _Seen] = {}  # by size, in powers of two
        self._step = 0

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many tokens, of prompts and of others, took so long."""
        self._step += 1
        size = rows.bit_length()
        row_s = seconds / rows
        if (seen := self._seen.get(size)) is not None:
            weight = _FASTER if row_s < seen.row_s else _SLOWER
            rows = round(seen.rows + weight * (rows - seen.rows))
            row_s = seen.row_s + weight * (row_s - seen.row_s)
        self._seen[size] = _Seen(rows, row_s, self._step)
        if self._step % _REMEMBERED_STEPS == 0:
            oldest = self._step - _REMEMBERED_STEPS
            self._seen = {size: seen for size, seen in self._seen.items() if seen.step > oldest}

    def chunk_tokens(self, *, generating: int, waiting: int) -> int:
        """Prompt tokens for the next step, 1 to `BATCH_TOKENS`, by how many sequences generate and how many wait."""
        if self._fixed is not None:
            return self._fixed
        if not waiting:
            return 1
        limit_s = LONGEST_STEP_S
        if generating:
            weight = max(1.0, waiting / generating)
            limit_s = min(limit_s, (1 + (SLOWDOWN - 1) * weight) * self._expected_s(generating))
        low, high = 1, BATCH_TOKENS
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
