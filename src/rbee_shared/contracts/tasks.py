"""A task: one inference, from submit to end. `/v2/tasks` takes it; a worker's `/execute` takes the part it needs."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from rbee_shared.contracts.base import Wire

MAX_TOKENS_LIMIT = 32_768
MAX_TOKEN_ID = 2**31 - 1
DEFAULT_MODEL = "builtin:storyteller"

Backend = Literal["cpu", "cuda", "metal", "vulkan"]
DeviceWish = Annotated[int, Field(ge=0, strict=True)] | Annotated[str, Field(min_length=1, max_length=64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]


class TaskState(StrEnum):
    """`queued` → `preparing` → `running` → one of the last three."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StopReason(StrEnum):
    """Why an answer ended."""

    EOS = "EOS"
    MAX_TOKENS = "MAX_TOKENS"
    STOP_SEQUENCE = "STOP_SEQUENCE"
    CANCELLED = "CANCELLED"
    CONTEXT_FULL = "CONTEXT_FULL"


class ChatMessage(Wire):
    """One turn of a conversation. A `tool`'s turn answers the call `tool_call_id` of the assistant's turn before it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = Field(default=None, description="Only an assistant's turn with tool_calls may leave it out.")
    name: str | None = Field(default=None, max_length=256)
    tool_calls: tuple[dict[str, Any], ...] | None = Field(default=None, min_length=1, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=256)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.tool_calls is None:
            raise ValueError("content is missing")
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("only the assistant calls tools")
        return self


class Sampling(Wire):
    """How the next token is chosen."""

    max_tokens: int = Field(default=256, ge=1, le=MAX_TOKENS_LIMIT, description="Upper bound on generated tokens.")
    temperature: Finite = Field(default=0.7, ge=0.0, le=2.0, description="0 is greedy decoding.")
    top_p: Finite = Field(default=0.95, gt=0.0, le=1.0)
    top_k: int = Field(default=40, ge=0, le=1_000_000, description="0 considers every token.")
    min_p: Finite = Field(default=0.05, ge=0.0, le=1.0)
    typical_p: Finite = Field(default=1.0, gt=0.0, le=1.0, description="1 considers every token.")
    repetition_penalty: Finite = Field(default=1.0, gt=0.0, le=10.0, description="1 is no penalty.")
    frequency_penalty: Finite = Field(default=0.0, ge=-2.0, le=2.0, description="Per time a token was said.")
    presence_penalty: Finite = Field(default=0.0, ge=-2.0, le=2.0, description="Once for a token that was said.")
    logit_bias: dict[TokenId, Annotated[Finite, Field(ge=-100.0, le=100.0)]] = Field(
        default_factory=dict, max_length=1000, description="Token id to what is added to its logit; -100 bans it."
    )
    ignore_eos: bool = Field(default=False, description="Go on to max_tokens whatever the model says.")
    mirostat: Literal[0, 1, 2] = Field(default=0, description="Replaces top_k, top_p, min_p and typical_p.")
    mirostat_tau: Finite = Field(default=5.0, gt=0.0, le=100.0, description="The surprise to aim at.")
    mirostat_eta: Finite = Field(default=0.1, gt=0.0, le=1.0, description="How fast mirostat learns.")
    logprobs: bool = Field(default=False, description="Send `logprobs` events, also without alternatives.")
    n_probs: int = Field(default=0, ge=0, le=20, description="Alternatives of each token in `logprobs` events.")
    seed: int | None = Field(default=None, ge=0, le=2**32 - 2, description="Same seed, build and device: same text.")
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(default=(), max_length=16)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _mirostat_is_no_greedy(self) -> Self:
        if self.mirostat and self.temperature == 0.0:
            raise ValueError("mirostat needs a temperature above 0: at 0 decoding is greedy")
        return self

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs or self.n_probs > 0


class Prompted(Sampling):
    """What to say to the model, a prompt or a conversation, and the form that its answer must have."""

    prompt: str | None = Field(default=None, min_length=1)
    messages: tuple[ChatMessage, ...] | None = Field(default=None, min_length=1, max_length=1000)
    tools: tuple[dict[str, Any], ...] | None = Field(
        default=None, min_length=1, max_length=128, description="Given to a chat template that takes them."
    )
    grammar: str | None = Field(default=None, min_length=1, description="GBNF: the answer is a sentence of it.")
    json_schema: dict[str, Any] | None = Field(default=None, description="The answer is JSON that it validates.")
    template: Literal["auto", "raw"] = Field(
        default="auto", description="`auto` applies the model's chat template to a prompt when it has one."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.grammar is not None and self.json_schema is not None:
            raise ValueError("grammar and json_schema are two forms for one answer: give one")
        if self.ignore_eos and self.is_constrained:
            raise ValueError("ignore_eos contradicts a grammar or json_schema, which says where the answer ends")
        if self.tools is not None and self.messages is None:
            raise ValueError("tools go with messages")
        return self

    @property
    def is_constrained(self) -> bool:
        return self.grammar is not None or self.json_schema is not None


class TaskRequest(Prompted):
    """`POST /v2/tasks` on the queen."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model: str | None = Field(default=None, min_length=1, max_length=1024)
    model_ref: str | None = Field(default=None, min_length=1, max_length=1024, description="Another name for `model`.")
    node: str | None = Field(default=None, min_length=1, max_length=255)
    backend: Backend | None = None
    device: DeviceWish | None = Field(default=None, description="An index with a backend, or an id: `cpu`, `cuda:1`.")
    stream: bool | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model is not None and self.model_ref is not None:
            raise ValueError("model and model_ref are two names for one field: give one")
        return self

    @property
    def chosen_model(self) -> str:
        return self.model or self.model_ref or DEFAULT_MODEL

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Fields that nobody knows: ignored, and said so."""
        return tuple(sorted(set(self.model_extra or {}) - NOT_BUILT_YET))

    @property
    def unbuilt_fields(self) -> tuple[str, ...]:
        """Fields that DESIGN knows and this version does not do: refused."""
        return tuple(sorted(name for name in NOT_BUILT_YET if (self.model_extra or {}).get(name) is not None))


NOT_BUILT_YET = frozenset({"priority", "deadline_ms", "session_id"})


class Resume(Wire):
    """Where an answer that another worker began stands."""

    ids: tuple[TokenId, ...] = Field(max_length=MAX_TOKENS_LIMIT, description="The `ids` of its token frames, joined.")
    emitted_chars: int = Field(ge=0, description="Characters of it that the reader has.")
    frames: int | None = Field(
        default=None, ge=0, le=MAX_TOKENS_LIMIT, description="Token frames that the reader has; default: by the ids."
    )
    sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Of the model file that made the ids."
    )


class ExecuteRequest(Prompted):
    """`POST /execute` on a worker; answered by an event stream."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    job_id: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")
    stream: bool | None = Field(default=None, description="Accepted for seed 004's body: the answer always streams.")
    resume: Resume | None = Field(default=None, description="Go on with an answer that was begun elsewhere.")
    resume_exact: bool = Field(default=False, description="Decode the resumed ids one a step, as they were produced.")

    @model_validator(mode="after")
    def _exactly_what(self) -> Self:
        if self.resume_exact and self.resume is None:
            raise ValueError("resume_exact needs resume")
        return self

    @property
    def unbuilt_fields(self) -> tuple[str, ...]:
        """Fields that DESIGN knows and this version does not do: refused."""
        return tuple(sorted(name for name in NOT_BUILT_YET if (self.model_extra or {}).get(name) is not None))


class CancelRequest(Wire):
    """`POST /cancel` on a worker."""

    job_id: str = Field(min_length=1, max_length=128)


class TaskAccepted(Wire):
    """202: the task is taken; its events are at `events_url`."""

    task_id: str
    job_id: str
    status: TaskState
    queue_position: int
    events_url: str


class TaskView(Wire):
    """One task as the queen knows it. Times are UNIX milliseconds."""

    task_id: str
    job_id: str
    status: TaskState
    model: str
    node: str | None
    worker_id: str | None
    submitted_at_ms: int
    finished_at_ms: int | None
    result: dict[str, Any] | None = Field(description="The `end` event's data, when there is one.")
    error: dict[str, Any] | None


class TaskList(Wire):
    """Newest first."""

    tasks: tuple[TaskView, ...]
    total: int
    next_before: str | None = Field(description="Pass as `before` for the next page; null on the last.")
