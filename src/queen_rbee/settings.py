"""Every knob of the queen, once, typed, with its unit."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from rbee_shared.settings import DaemonSettings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class QueenSettings(DaemonSettings):
    """`[queen]` in config.toml, `RBEE_QUEEN_*` in the environment."""

    table: ClassVar[str] = "queen"
    model_config = SettingsConfigDict(env_prefix="RBEE_QUEEN_", frozen=True, extra="forbid")

    port: int = Field(default=8080, ge=0, le=65_535, description="0 lets the system choose; the URL is reported.")
    bind: str = Field(default="127.0.0.1", description="Anything but loopback wants the token on every route.")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="Names this queen answers to besides localhost.")
    wheels_dir: Path | None = Field(default=None, description="Engine wheels that go along to nodes where they fit.")
    hive_port: int = Field(default=9200, ge=0, le=65_535, description="Where she starts a hive, if it is free.")
    queue_per_model: int = Field(default=64, ge=1, description="Tasks that may wait for one model.")
    queue_in_all: int = Field(default=256, ge=1, description="Tasks that may wait in all.")
    finished_tasks_kept: int = Field(default=1000, ge=1, description="Finished tasks whose events can be read.")
    task_logs_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024, description="Of all tasks' events.")

    @property
    def on_loopback(self) -> bool:
        return self.bind in _LOOPBACK
