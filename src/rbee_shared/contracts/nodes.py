"""Nodes, hives and devices."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.workers import WorkerRecord

Transport = Literal["local", "ssh", "http"]


class NodeState(StrEnum):
    """`unknown` → `starting` → `online` → `suspect` → `offline`; `draining` on its way out."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    ONLINE = "online"
    SUSPECT = "suspect"
    OFFLINE = "offline"
    DRAINING = "draining"


class CpuDevice(Wire):
    """The processor and its memory, as far as this process may use them (cgroup limits applied).

    What is null is not known here: nothing is made up.
    """

    name: str
    cores: int = Field(description="That this process may use, a container's quota of time included.")
    physical_cores: int | None = Field(default=None, description="Behind those that it may run on.")
    logical_cores: int | None = Field(default=None, description="That it may run on.")
    quota_cores: float | None = Field(default=None, description="Its container's share of time; null: no limit.")
    ram_bytes: int
    free_bytes: int
    ram_gb: float
    ram_limit_bytes: int | None = Field(default=None, description="Its container's, where that is the lower one.")
    utilisation_pct: float | None = Field(default=None, description="Of all processors, since the last look.")
    temperature_c: float | None = None
    declared: bool = Field(default=False, description="Named in the hive's config.toml.")
    offered: bool = Field(default=True, description="False: the declared devices leave it out; no worker runs on it.")


class GpuDevice(Wire):
    """A graphics processor. `id` is `gpu1`, 1 being its index; `cuda:1` where that would name two of one node."""

    id: str
    backend: str
    index: int = Field(description="Its backend's own number for it.")
    name: str
    vram_bytes: int = Field(description="Of a unified memory: the part that it may use.")
    free_bytes: int
    vram_gb: float
    uuid: str | None = None
    parent_uuid: str | None = Field(default=None, description="Of the GPU that this MIG instance is a part of.")
    driver: str | None = None
    cores: int | None = None
    utilisation_pct: float | None = None
    temperature_c: float | None = None
    unified: bool = Field(default=False, description="It has no memory of its own: it shares the processor's.")
    declared: bool = Field(default=False, description="Named in the hive's config.toml instead of detected.")
    build: str | None = Field(default=None, description="The kind of worker build that serves it; null: its backend.")

    @property
    def declaration(self) -> str | None:
        """`declared metal, computed on cpu`; None for a device that was detected."""
        return f"declared {self.backend}, computed on {self.build or self.backend}" if self.declared else None


class Devices(Wire):
    """`GET /v1/devices`. `problems`: what could not be found out, one sentence each."""

    cpu: CpuDevice
    gpus: tuple[GpuDevice, ...] = ()
    models: int
    workers: int
    problems: tuple[str, ...] = ()


class DeviceLoad(Wire):
    """What changes about a device between two heartbeats."""

    id: str
    free_bytes: int
    utilisation_pct: float | None = Field(default=None, description="Null: not known.")


class HiveHeartbeat(Wire):
    """`POST /v1/heartbeat`, hive to queen, every 2 s; the answer keeps the hive's lease.

    `name`, `url` and `version` introduce it; one that the queen knows needs no more than its id and its workers.
    """

    hive_id: str = Field(min_length=1, max_length=255)
    name: str | None = Field(default=None, min_length=1, max_length=255)
    url: str | None = None
    epoch: int | None = None
    seq: int = 0
    version: str | None = None
    standalone: bool = False
    devices: tuple[DeviceLoad, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    models: tuple[str, ...] = ()
    narrated: int = 0


class HeartbeatAnswer(Wire):
    """`adopted`: the hive is the queen's and lives as long as she answers; not so if she cannot tell where it is."""

    epoch: int
    adopted: bool


class AdoptRequest(Wire):
    """`POST /v1/adopt`: a queen tells a waiting hive where to send its heartbeats."""

    queen_url: str
    epoch: int


class NodeView(Wire):
    """`GET /v2/nodes`. `last_seen_ms` is UNIX time."""

    name: str
    transport: Transport
    state: NodeState
    url: str | None = None
    version: str | None = None
    last_seen_ms: int | None = None
    devices: dict[str, Any] | None = None
    workers: int = 0


class NodeList(Wire):
    nodes: tuple[NodeView, ...]
