"""Nodes, hives and devices."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.workers import WorkerRecord

Transport = Literal["local", "ssh", "http"]
NODE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
FINGERPRINT = r"^SHA256:[A-Za-z0-9+/]{43}$"
REMOTE_PATH = r"^(~|/)[^\x00-\x1f\x7f]*$"
KEY_FILE = r"^~?/[^\x00-\x1f\x7f]*$"


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
    queen_id: str | None = Field(default=None, description="Who she is, over all her starts and addresses.")


class AdoptRequest(Wire):
    """`POST /v1/adopt`: a queen tells a waiting hive where to send its heartbeats.

    One queen keeps her `queen_id` over every restart and under every address; without one her address stands for it.
    """

    queen_url: str
    queen_id: str | None = Field(default=None, min_length=1, max_length=64)
    queen_token: str | None = Field(
        default=None, description="What she takes from this hive; null: the cluster's token."
    )
    epoch: int


class NodeFault(Wire):
    """Why a node could not be used the last time it was tried. `at_ms` is UNIX time."""

    code: str
    message: str
    hint: str
    at_ms: int


class KnownDeviceView(Wire):
    """A device that a node had when it was last asked."""

    id: str
    backend: str
    name: str
    memory_bytes: int


class NodeView(Wire):
    """One node of `GET /v2/nodes`. `last_seen_ms` is UNIX time; host, port, user and key are those of SSH."""

    name: str
    transport: Transport
    state: NodeState
    host: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = Field(default=None, description="A file of the queen's machine; null: agent and usual keys.")
    home: str | None = Field(default=None, description="Where rbee keeps its files there; null: ~/.rbee.")
    install: bool = Field(default=True, description="Whether she installs and updates rbee there by herself.")
    drained: bool = Field(default=False, description="It gets no new work.")
    url: str | None = None
    version: str | None = None
    last_seen_ms: int | None = None
    last_error: NodeFault | None = None
    devices: dict[str, Any] | None = Field(default=None, description="As its hive told; null while no hive is up.")
    known_devices: tuple[KnownDeviceView, ...] = Field(default=(), description="What the catalog remembers of them.")
    workers: int = 0


class NodeList(Wire):
    nodes: tuple[NodeView, ...]


class NodeOrder(Wire):
    """`POST /v2/nodes`: add a node, or change one of that name.

    What is left out of a node that is known stays as it is. Null, or an empty string, is the default again.

    Without `fingerprint` a host whose key is not known yet is refused with `SSH_HOST_KEY_UNKNOWN`, whose details carry
    `fingerprint`, `key_type`, `host` and `port`: show them to a person, and send the order again with it.
    """

    name: str = Field(pattern=NODE_NAME)
    host: str | None = Field(default=None, max_length=255, description="Null: the name.")
    port: int | None = Field(
        default=None, ge=1, le=65_535, description="Of its SSH server; null: as ssh itself finds it."
    )
    user: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}$")
    key: str | None = Field(
        default=None,
        pattern=KEY_FILE,
        max_length=1024,
        description="A file of the queen's machine, from / or ~/; null: the agent and the usual keys.",
    )
    transport: Literal["ssh", "http"] = "ssh"
    hive_port: int | None = Field(default=None, ge=1, le=65_535, description="Where its hive listens; null: 9200.")
    home: str | None = Field(default=None, pattern=REMOTE_PATH, max_length=1024)
    install: bool = True
    fingerprint: str | None = Field(default=None, pattern=FINGERPRINT)

    @field_validator("host", "port", "user", "key", "hive_port", "home", mode="before")
    @classmethod
    def _empty_is_null(cls, value: object) -> object:
        return None if value == "" else value


class TrustOrder(Wire):
    """`POST /v2/nodes/{name}/trust`: without `fingerprint` it is refused with both keys in the details."""

    fingerprint: str | None = Field(default=None, pattern=FINGERPRINT)


class NodeAction(Wire):
    """`POST /v2/nodes/{name}/{action}`: the options of every action; those that do not apply are ignored."""

    install: bool = Field(default=True, description="start: install or update rbee first where that is needed.")
    check: bool = Field(default=False, description="update: only say what would be done.")
    drain: bool = Field(default=False, description="update: stop its workers when they are done, instead of refusing.")
    keep_models: bool = Field(default=False, description="uninstall: leave the models and their catalog.")


class NodeOutcome(Wire):
    """The end of an action, and its answer where the caller does not stream. `facts`: what the action found or did."""

    node: NodeView
    facts: dict[str, Any] = Field(default_factory=dict)
