"""Workers as the hive tells of them: its own records, and the orders it takes."""

from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.model_name import NamesModel
from rbee_shared.contracts.tasks import Backend, DeviceWish


class WorkerState(StrEnum):
    """`starting` → `loading` → `idle` ⇄ `busy` → `draining` → `stopped`, and `failed` from anywhere."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class MemoryParts(Wire):
    """What llama.cpp allocated for a model, by what it is for."""

    weights_bytes: int
    kv_bytes: int = Field(description="Keys and values of the context; recurrent state where a model has it.")
    compute_bytes: int = Field(description="Scratch buffers of a step, and the logits.")


class SpawnRequest(NamesModel):
    """`POST /v1/workers/spawn`. The same `request_id` twice is one worker."""

    backend: Backend | None = None
    device: DeviceWish | None = None
    n_ctx: int | None = Field(default=None, ge=1, le=1_048_576, description="Context in tokens; default: the model's.")
    slots: int | None = Field(default=None, ge=1, le=256)
    port_hint: int | None = Field(default=None, ge=1, le=65_535)
    request_id: str | None = Field(default=None, min_length=1, max_length=128)


class WorkerRecord(Wire):
    """The hive's lifecycle view of one worker. Times are UNIX seconds.

    A worker that is started again keeps its id; `restart_count` tells its processes apart. It counts from the moment of
    the crash: until the next process serves, `state` is `starting` or `loading` and `error` says how the last one died.
    """

    id: str
    url: str | None
    model_ref: str
    model_id: str | None = Field(default=None, description="Of the model's row in the hive's catalog.")
    backend: str
    device: str
    state: WorkerState
    pid: int | None
    started_at: float
    ended_at: float | None = None
    restart_count: int = 0
    pinned: bool = Field(default=False, description="Never stopped for being idle.")
    failed_health_checks: int = 0
    last_heartbeat: float | None = None
    last_activity: float
    slots_total: int = 1
    slots_busy: int = 0
    memory_bytes: int | None = None
    memory: MemoryParts | None = None
    api_key: str | None = Field(default=None, repr=False, description="For the queen only: never shown to people.")
    error: dict[str, Any] | None = Field(default=None, description="Why it does not serve, if something went wrong.")
    last_crash: dict[str, Any] | None = Field(default=None, description="Why the process before this one died.")


class WorkerList(Wire):
    """`GET /v1/workers/list`."""

    workers: tuple[WorkerRecord, ...]


class SpawnAnswer(Wire):
    """202, or 201 with `?wait=ready`."""

    worker_id: str
    state: WorkerState
    url: str | None = None


class WorkerReady(Wire):
    """A worker to its hive, and the hive to its queen: this worker has decoded a token."""

    worker_id: str
    url: str
    model_ref: str
    backend: str
    device: int | str
    restart_count: int = Field(default=0, description="Which of the worker's processes it is; told by the hive only.")
    narrated: int = Field(default=0, description="Lines the sender had said by then: read them first.")
    memory: MemoryParts | None = Field(default=None, description="What the loaded model takes, by part.")


class WorkerHeartbeat(Wire):
    """A worker to its hive, every 2 s."""

    worker_id: str
    state: WorkerState
    url: str | None = None
    slots_total: int = 1
    slots_busy: int = 0
    rss_bytes: int | None = None
    last_activity: float | None = None
    narrated: int = 0
    memory: MemoryParts | None = Field(default=None, description="Once the model is loaded.")
    load_done: int | None = Field(default=None, description="Per mille of the load, while loading.")
    engine_steps: int | None = Field(default=None, description="Decode steps so far.")
    answers_in_engine: int = Field(default=0, description="While there are any, `engine_steps` has to grow.")

    @field_validator("state", mode="before")
    @classmethod
    def _any_spelling(cls, value: object) -> object:
        """`Ready` and `Loading` are how the oldest documents write it."""
        text = value.lower() if isinstance(value, str) else value
        return WorkerState.IDLE if text == "ready" else text


class WorkerView(Wire):
    """The queen's routing view of one worker."""

    id: str
    url: str | None
    model_ref: str
    backend: str
    device: str
    state: WorkerState
    node_name: str
    slots_total: int
    slots_available: int
    vram_bytes: int | None
