"""Every knob of a hive, once, typed, with its unit."""

import socket
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from rbee_hive.domain.devices.declaration import DeclaredDevice, require_consistent
from rbee_shared.settings import DaemonSettings


class HiveSettings(DaemonSettings):
    """`[hive]` in config.toml, `RBEE_HIVE_*` in the environment."""

    table: ClassVar[str] = "hive"
    model_config = SettingsConfigDict(env_prefix="RBEE_HIVE_", frozen=True, extra="forbid", protected_namespaces=())

    port: int = Field(default=9200, ge=0, le=65_535, description="0 lets the system choose; the URL is reported.")
    bind: str = Field(default="127.0.0.1", description="The token is wanted on every address.")
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=255, description="Of this node.")
    queen: str | None = Field(default=None, pattern=r"^http://", description="URL of the queen to announce itself to.")
    token_file: Path | None = Field(default=None, description="Default: the token of this home, made if there is none.")
    standalone: bool = Field(default=False, description="Outlives its queens; stops only what they ordered.")
    model_roots: tuple[Path, ...] = Field(default=(), description="Directories with models besides the home's own.")
    worker_port: int = Field(default=8001, ge=0, le=65_535, description="Workers take the first free port from here.")
    ended_workers_kept: int = Field(default=32, ge=1, description="Records of ended workers, newest kept.")
    ended_workers_kept_s: float = Field(default=60.0, ge=0, description="How long such a record is shown.")
    devices: tuple[DeclaredDevice, ...] = Field(default=(), description="Replace detection, the processor included.")

    preload: tuple[str, ...] = Field(default=(), description="Models to load at start: references or ids.")
    wheels_dir: Path | None = Field(
        default=None, description="Engine wheels to take worker builds from; none: ~/.rbee/wheels."
    )
    build_jobs: int | None = Field(default=None, ge=1, description="Compilers at a time; default: by cores and memory.")

    @field_validator("devices")
    @classmethod
    def _are_consistent(cls, devices: tuple[DeclaredDevice, ...]) -> tuple[DeclaredDevice, ...]:
        require_consistent(devices)
        return devices
