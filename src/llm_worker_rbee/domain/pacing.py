"""How much of a prompt goes into one step, so that whoever generates meanwhile hardly notices.

Pure: the times come in. A step that carries prompt tokens may take `SLOWDOWN` times as long as one that does not; with
nobody to wait, it is bounded only so that a cancel is heard soon.
"""

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS

SLOWDOWN = 2.0
LONGEST_STEP_S = 0.5
_WEIGHT = 0.3
_GROWTH = 2


class Pace:
    """Learns from every step. `fixed_tokens`: the same chunk always, for results that can be repeated exactly."""

    def __init__(self, fixed_tokens: int | None = None) -> None:
        self._fixed = fixed_tokens
        self._generate_s: float | None = None
        self._token_s: float | None = None
        self._tried = 1

    def chunk_tokens(self, *, others_generate: bool) -> int:
        """Prompt tokens for the next step; 1 to `BATCH_TOKENS`."""
        if self._fixed is not None:
            return self._fixed
        if not others_generate:
            return self._within(LONGEST_STEP_S, BATCH_TOKENS)
        # never much more than was tried before: the cost of a token is known only for chunks like those seen
        return self._within((SLOWDOWN - 1) * (self._generate_s or 0.0), min(BATCH_TOKENS, self._tried))

    def observe(self, *, generated: int, prefilled: int, seconds: float) -> None:
        """A step of `generated` sequences' next tokens and `prefilled` tokens of prompts took so long."""
        if not prefilled:
            self._generate_s = _mean(self._generate_s, seconds)
            return
        own_s = seconds - (self._generate_s or 0.0) if generated else seconds
        self._token_s = _mean(self._token_s, max(own_s, 0.0) / prefilled)
        if generated:
            self._tried = _GROWTH * prefilled

    def _within(self, seconds: float, most: int) -> int:
        if not self._token_s:
            return most
        return max(1, min(most, int(seconds / self._token_s)))


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _WEIGHT * (value - mean)
