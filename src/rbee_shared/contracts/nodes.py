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
    """The processor and its memory, as far as this process may use them (cgroup limits applied)."""

    name: str
    cores: int
    ram_bytes: int
    free_bytes: int
    ram_gb: float


class GpuDevice(Wire):
    """A graphics processor."""

    id: str
    backend: str
    index: int
    name: str
    vram_bytes: int
    free_bytes: int
    vram_gb: float


class Devices(Wire):
    """`GET /v1/devices`."""

    cpu: CpuDevice
    gpus: tuple[GpuDevice, ...] = ()
    models: int
    workers: int


class DeviceLoad(Wire):
    """What changes about a device between two heartbeats."""

    id: str
    free_bytes: int
    utilisation_pct: float


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
