"""A task: one inference, from submit to end. `/v2/tasks` takes it; a worker's `/execute` takes the part it needs."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from rbee_shared.contracts.base import Wire

MAX_TOKENS_LIMIT = 32_768
DEFAULT_MODEL = "builtin:storyteller"

Backend = Literal["cpu", "cuda", "metal", "vulkan"]
DeviceWish = Annotated[int, Field(ge=0, strict=True)] | Annotated[str, Field(min_length=1, max_length=64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


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
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Wire):
    """How the next token is chosen."""

    max_tokens: int = Field(default=256, ge=1, le=MAX_TOKENS_LIMIT, description="Upper bound on generated tokens.")
    temperature: Finite = Field(default=0.7, ge=0.0, le=2.0, description="0 is greedy decoding.")
    top_p: Finite = Field(default=0.95, gt=0.0, le=1.0)
    top_k: int = Field(default=40, ge=0, le=1_000_000, description="0 considers every token.")
    min_p: Finite = Field(default=0.05, ge=0.0, le=1.0)
    repetition_penalty: Finite = Field(default=1.0, gt=0.0, le=10.0, description="1 is no penalty.")
    seed: int | None = Field(default=None, ge=0, le=2**32 - 2, description="Same seed, build and device: same text.")
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(default=(), max_length=16)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Prompted(Sampling):
    """What to say to the model: a prompt or a conversation, exactly one of them."""

    prompt: str | None = Field(default=None, min_length=1)
    messages: tuple[ChatMessage, ...] | None = Field(default=None, min_length=1, max_length=1000)
    template: Literal["auto", "raw"] = Field(
        default="auto", description="`auto` applies the model's chat template to a prompt when it has one."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


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


NOT_BUILT_YET = frozenset(
    {
        "grammar",
        "json_schema",
        "priority",
        "deadline_ms",
        "session_id",
        "typical_p",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "ignore_eos",
        "n_probs",
        "logprobs",
        "mirostat",
        "tools",
    }
)


class ExecuteRequest(Prompted):
    """`POST /execute` on a worker; answered by an event stream."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    job_id: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")
    stream: bool | None = Field(default=None, description="Accepted for seed 004's body: the answer always streams.")

    @property
    def unbuilt_fields(self) -> tuple[str, ...]:
        """Fields that DESIGN knows and this version does not do: refused."""
        unbuilt = NOT_BUILT_YET | {"resume", "resume_exact"}
        return tuple(sorted(name for name in unbuilt if (self.model_extra or {}).get(name) is not None))


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
