"""What the engine is told and what it tells: plain values that cross between its thread and the event loop."""

from dataclasses import dataclass, field
from typing import Protocol

from llm_worker_rbee.domain.detokenize import AnswerText, Visible
from llm_worker_rbee.domain.sampling_params import Stage
from rbee_shared.contracts.events import ChosenLogprob
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.contracts.workers import MemoryParts
from rbee_shared.errors import RbeeError


class Guide(Protocol):
    """What may follow in an answer that has a form to keep: a grammar's or a schema's state after the tokens so far."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        ...

    def mask(self, logits: object) -> bool:
        """Forbid in place, in a row of logits, what may not follow; False when nothing may."""
        ...

    def accept(self, token: int) -> bool:
        """Go on by one token; False when it may not follow."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the engine needs it: its prompt in tokens, and where its answer stands when it begins.

    `said`: tokens of the answer that were chosen elsewhere, `frames` the number of frames they made there, `backlog`
    the text of theirs that the reader has not seen. `text` and `guide` have taken them already.
    """

    prompt: tuple[int, ...]
    text: AnswerText
    guide: Guide | None = None
    said: tuple[int, ...] = ()
    frames: int = 0
    backlog: tuple[Visible, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One answer to generate. `key` names it in events; the worker never uses one twice.

    `replays`: what was `said` is decoded one token a step, as it was when it was chosen. `n_probs`: alternatives to
    tell for each token, None for no log probabilities.
    """

    key: int
    prepared: Prepared
    stages: tuple[Stage, ...]
    max_tokens: int
    replays: bool = False
    n_probs: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """Where the model runs. `id` as in `cpu`, `cuda:1`."""

    id: str
    backend: str
    index: int
    description: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The loaded model. `n_ctx`: tokens that all slots share; `n_ctx_answer`: that one answer may have, its prompt too.

    `device_bytes`: what of the memory is not main memory. `template_fault`: why the model's chat template cannot be
    used, None where it can be, or is none.
    """

    name: str
    size_bytes: int
    n_params: int
    n_ctx: int
    n_ctx_answer: int
    n_ctx_train: int
    slots: int
    threads: int
    memory: MemoryParts
    has_template: bool
    device_bytes: int = 0
    template_fault: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceReady:
    device: Device


@dataclass(frozen=True, slots=True)
class LoadProgress:
    per_mille: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is in memory and has decoded a token."""

    model: ModelFacts


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine cannot load, or its thread died: nothing follows."""

    error: RbeeError


@dataclass(frozen=True, slots=True)
class Begun:
    """One answer has its slot. `cached_tokens` of its prompt were in the cache already."""

    key: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Preempted:
    """The cache is full: one answer waits until others have made room, then goes on where it was."""

    key: int


@dataclass(frozen=True, slots=True)
class Emitted:
    """Text of one answer became visible. `tokens_out`: chosen so far, also those that show no text yet."""

    key: int
    text: str
    ids: tuple[int, ...]
    tokens_out: int
    logprobs: tuple[ChosenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """One answer is complete and has left the engine. Times are `time.monotonic()` seconds, None without a token."""

    key: int
    stop_reason: StopReason
    stop_matched: str | None
    tokens_out: int
    prefilled_at_s: float | None
    first_token_at_s: float | None
    finished_at_s: float
    cached_tokens: int = 0
    began_with: int = field(default=0)  # of tokens_out: chosen elsewhere, before this worker went on


@dataclass(frozen=True, slots=True)
class Failed:
    """One answer failed and has left the engine."""

    key: int
    error: RbeeError


LoadEvent = DeviceReady | LoadProgress | Loaded | EngineFailed
AnswerEvent = Emitted | Begun | Finished | Failed | Preempted
EngineEvent = AnswerEvent | LoadEvent
