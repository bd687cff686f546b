"""How much of a prompt goes into one step, so that whoever generates meanwhile hardly notices.

Pure: the times come in. A step that carries prompt tokens may take `SLOWDOWN` times as long as one that does not, and
longer the more of those who wait for their first token there are to each who generates; with nobody who generates it is
bounded only so that a cancel is heard soon.
"""

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS

SLOWDOWN = 2.0
LONGEST_STEP_S = 0.5
_WEIGHT = 0.3


class Pace:
    """Learns from every step what so many rows cost. `fixed_tokens`: always that chunk, for results that repeat."""

    def __init__(self, fixed_tokens: int | None = None) -> None:
        self._fixed = fixed_tokens
        self._seen: dict[int, tuple[float, float]] = {}  # by size, in powers of two: rows and seconds of such steps

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many tokens, of prompts and of others, took so long."""
        size = rows.bit_length()
        known_rows, known_s = self._seen.get(size, (rows, seconds))
        self._seen[size] = known_rows + _WEIGHT * (rows - known_rows), known_s + _WEIGHT * (seconds - known_s)

    def chunk_tokens(self, *, generating: int, waiting: int) -> int:
        """Prompt tokens for the next step, 1 to `BATCH_TOKENS`, by how many sequences generate and how many wait."""
        if self._fixed is not None:
            return self._fixed
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
        below: tuple[float, float] | None = None
        for point_rows, point_s in sorted(self._seen.values()):
            if rows <= point_rows:
                if below is None:
                    return point_s
                share = (rows - below[0]) / (point_rows - below[0])
                return below[1] + share * (point_s - below[1])
            below = point_rows, point_s
        return below[1] * rows / below[0] if below is not None else 0.0
