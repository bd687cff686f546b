"""What the engine is told and what it tells: plain values that cross between its thread and the event loop."""

from dataclasses import dataclass

from llm_worker_rbee.domain.sampling_params import Stage
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Order:
    """One answer to generate. `key` names it in events; the worker never uses one twice."""

    key: int
    prompt: tuple[int, ...]
    stages: tuple[Stage, ...]
    max_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """Where the model runs. `id` as in `cpu`, `cuda:1`."""

    id: str
    backend: str
    index: int
    description: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The loaded model."""

    name: str
    size_bytes: int
    n_params: int
    n_ctx: int
    n_ctx_train: int
    threads: int
    has_template: bool


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
class Emitted:
    """Text of one answer became visible. `tokens_out`: chosen so far, also those that show no text yet."""

    key: int
    text: str
    ids: tuple[int, ...]
    tokens_out: int


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


@dataclass(frozen=True, slots=True)
class Failed:
    """One answer failed and has left the engine."""

    key: int
    error: RbeeError


EngineEvent = DeviceReady | LoadProgress | Loaded | EngineFailed | Emitted | Finished | Failed
