"""One answer while it is in the engine."""

from dataclasses import dataclass, field
from typing import Any

from llm_worker_rbee.domain.detokenize import AnswerText
from llm_worker_rbee.domain.engine_events import Order


@dataclass(slots=True)
class Sequence:
    """`tokens`: the prompt and what was chosen, `decoded` of them are in the cache. `row`: sampled after this step."""

    order: Order
    seq_id: int
    sampler: Any
    text: AnswerText
    tokens: list[int] = field(init=False)
    decoded: int = 0
    decoded_before: int = 0
    tokens_out: int = 0
    row: int = -1
    cancelled: bool = False
    prefilled_at_s: float | None = None
    first_token_at_s: float | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.order.prompt)

    @property
    def waiting(self) -> int:
        """Tokens that are not in the cache yet."""
        return len(self.tokens) - self.decoded
