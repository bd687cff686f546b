"""One answer while it is in the engine."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from llm_worker_rbee.domain.batch_plan import Running
from llm_worker_rbee.domain.engine_events import Order
from rbee_shared.contracts.events import ChosenLogprob
from rbee_shared.contracts.tasks import StopReason


@dataclass(slots=True)
class Sequence:
    """`tokens`: the prompt and what was chosen, `decoded` of them are in the cache. `row`: sampled after this step.

    `replay`: tokens that were chosen elsewhere and are still to be decoded, one a step.
    """

    order: Order
    seq_id: int
    sampler: Any
    cached_tokens: int
    tokens: list[int] = field(init=False)
    replay: deque[int] = field(init=False)
    decoded: int = field(init=False)
    decoded_before: int = 0
    begun: bool = False
    tokens_out: int = field(init=False)
    row: int = -1
    ends_as: StopReason | None = None
    logprobs: deque[ChosenLogprob] = field(default_factory=deque)
    prefilled_at_s: float | None = None
    first_token_at_s: float | None = None

    def __post_init__(self) -> None:
        prepared = self.order.prepared
        self.tokens = list(prepared.prompt)
        self.replay = deque(prepared.said if self.order.replays else ())
        if not self.order.replays:
            self.tokens += prepared.said
        self.decoded = self.cached_tokens
        self.tokens_out = len(prepared.said)

    def as_running(self) -> Running:
        return Running(
            key=self.order.key,
            age=self.order.key,
            held=self.decoded,
            pending=len(self.tokens) - self.decoded,
            begun=self.begun,
        )
