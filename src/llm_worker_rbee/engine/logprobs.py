"""How probable the model found a token, and what else: from a row of logits, before anything forbids or favours."""

from typing import Any

from llm_worker_rbee.engine.llama import Vocabulary
from rbee_shared.contracts.events import ChosenLogprob, TokenLogprob

_NO_CHANCE = -9999.0  # JSON has no infinity


class Logprobs:
    """Reads distributions of `n_vocab` logits. numpy is loaded with the first one: most workers never need it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def of_row(self, logits: Any) -> Any:
        """A copy of the row as log probabilities; `logits` is llama.cpp's pointer."""
        import numpy as np  # noqa: PLC0415 - see above

        row = np.ctypeslib.as_array(logits, shape=(self._vocabulary.size,)).astype(np.float64)
        row -= row.max()
        row -= np.log(np.exp(row).sum())
        return row

    def tell(self, row: Any, token: int, n_probs: int) -> ChosenLogprob:
        """The chosen token's entry, with the `n_probs` most probable ones."""
        import numpy as np  # noqa: PLC0415 - see above

        n_probs = min(n_probs, self._vocabulary.size)
        best = np.argpartition(row, -n_probs)[-n_probs:] if n_probs else ()
        ordered = sorted((int(one) for one in best), key=lambda one: (-row[one], one))
        top = tuple(TokenLogprob(id=one, t=self._text(one), logprob=self._value(row, one)) for one in ordered)
        return ChosenLogprob(id=token, t=self._text(token), logprob=self._value(row, token), top=top)

    def _text(self, token: int) -> str:
        return (self._vocabulary.piece(token) or b"").decode(errors="replace")

    def _value(self, row: Any, token: int) -> float:
        return round(max(float(row[token]), _NO_CHANCE), 6)
