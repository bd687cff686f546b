"""The event stream of a task: `started`, then `token`s with others in between, then exactly one of `end` and `error`.

These models document and check the frames; the token path itself formats bytes (`token_frame`).
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.tasks import StopReason


class NarrationEvent(Wire):
    """What a program is doing, in words."""

    type: Literal["narration"] = "narration"
    actor: str
    action: str
    human: str
    cute: str | None = None
    level: Literal["info", "warning", "error"] = "info"
    node: str | None = None
    at_ms: int
    correlation_id: str | None = None
    details: dict[str, Any] | None = None


class QueuedEvent(Wire):
    """The task waits; position 1 is next."""

    type: Literal["queued"] = "queued"
    position: int
    reason: str


class StartedEvent(Wire):
    """The worker has begun. `started_at` is ISO 8601 in UTC."""

    type: Literal["started"] = "started"
    job_id: str
    task_id: str | None = None
    model: str
    worker_id: str
    node: str | None = None
    device: str
    started_at: str


class TokenEvent(Wire):
    """`t`: whole UTF-8 text. `i`: frames from 0, no gap, no repeat. `ids`: the tokens whose text first shows here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["token"] = "token"
    t: str
    i: int
    ids: tuple[int, ...]


class TokenLogprob(Wire):
    """A token and the natural logarithm of its probability, by the model alone; -9999 stands for none at all."""

    id: int
    t: str = Field(description="Its bytes as text; U+FFFD where they are a part of a character.")
    logprob: float


class ChosenLogprob(TokenLogprob):
    """A token of the answer with the most probable ones in its place, the best first."""

    top: tuple[TokenLogprob, ...] = ()


class LogprobsEvent(Wire):
    """Of the tokens of the `token` frame with the same `i`; comes right after it."""

    type: Literal["logprobs"] = "logprobs"
    i: int
    tokens: tuple[ChosenLogprob, ...]


class EndEvent(Wire):
    """The answer is complete."""

    type: Literal["end"] = "end"
    job_id: str | None = None
    task_id: str | None = None
    tokens_out: int
    prompt_tokens: int
    cached_tokens: int
    ttft_ms: float = Field(description="From the worker's receiving the request to its first token.")
    decode_time_ms: float
    tokens_per_s: float
    stop_reason: StopReason
    stop_sequence_matched: str | None = None
    receipt: dict[str, Any] | None = None


class ErrorEvent(Wire):
    """The answer failed; nothing follows."""

    type: Literal["error"] = "error"
    job_id: str | None = None
    task_id: str | None = None
    code: str
    message: str
    hint: str
    retryable: bool
    details: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


TaskEvent = Annotated[
    NarrationEvent | QueuedEvent | ProgressEvent | StartedEvent | TokenEvent | LogprobsEvent | EndEvent | ErrorEvent,
    Field(discriminator="type"),
]


def token_frame(text: str, index: int, ids: Sequence[int]) -> bytes:
    """The bytes of one `token` event."""
    return b'event: token\ndata: {"type":"token","t":%b,"i":%d,"ids":[%b]}\n\n' % (
        json.dumps(text).encode(),
        index,
        ",".join(map(str, ids)).encode(),
    )
