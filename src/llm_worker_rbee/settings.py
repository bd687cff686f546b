"""Every knob of a worker, once, typed, with its unit."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from rbee_shared.contracts.tasks import Backend
from rbee_shared.settings import DaemonSettings


class WorkerSettings(DaemonSettings):
    """Flags win over `RBEE_WORKER_…`, that over `[worker]` in config.toml, that over the defaults."""

    table: ClassVar[str] = "worker"
    model_config = SettingsConfigDict(
        env_prefix="RBEE_WORKER_", frozen=True, extra="forbid", protected_namespaces=(), env_ignore_empty=True
    )

    model: Path = Field(description="The GGUF file.")
    model_ref: str | None = Field(default=None, description="What the cluster calls it; default: file:PATH.")
    backend: Backend = "cpu"
    device: str = Field(default="0", max_length=64, description="Number of the backend's device.")
    port: int = Field(default=8001, ge=0, le=65_535, description="First port to try; 0 lets the system choose.")
    hive_url: str | None = None
    worker_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]{1,128}$")
    slots: int = Field(default=1, ge=1, le=256, description="Answers that are generated at a time.")
    n_ctx: int | None = Field(default=None, ge=1, le=1_048_576, description="Context in tokens; default: the model's.")
    local_mode: bool = Field(default=False, description="Serve alone: loopback only, no hive, no key.")

    @model_validator(mode="after")
    def _no_hive_when_local(self) -> Self:
        if self.local_mode and self.hive_url is not None:
            raise ValueError("local_mode has no hive: leave --hive-url out")
        return self

    @property
    def reference(self) -> str:
        return self.model_ref or f"file:{self.model.absolute()}"
