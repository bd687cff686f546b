"""What the cluster's catalog says of one node."""

from dataclasses import dataclass, field

from rbee_shared.contracts.nodes import NodeFault, Transport

LOCAL_NODE = "localhost"
DEFAULT_HOME = "~/.rbee"
DEFAULT_HIVE_PORT = 9200


@dataclass(frozen=True)
class KnownDevice:
    """A device that a node had when it was last heard."""

    id: str
    backend: str
    memory_bytes: int
    name: str = ""

    @property
    def is_gpu(self) -> bool:
        return self.backend != "cpu"


@dataclass(frozen=True)
class Node:
    """One row of the catalog. What is None is left to the configuration of SSH, or to the default.

    `models`: every name under which it knew a model when it was last heard; `devices`: what it had then.
    `serving`: a hive of this queen was running there when she last knew. `last_seen_unix` is in seconds.
    """

    name: str
    transport: Transport
    host: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = None
    hive_port: int | None = None
    home: str | None = None
    installs: bool = True
    drained: bool = False
    serving: bool = False
    version: str | None = None
    last_seen_unix: int | None = None
    last_error: NodeFault | None = None
    models: frozenset[str] = field(default_factory=frozenset)
    devices: tuple[KnownDevice, ...] = ()

    @property
    def is_local(self) -> bool:
        return self.transport == "local"

    @property
    def address(self) -> str:
        """The host that SSH or HTTP is told."""
        return self.host or self.name

    def is_called(self, wanted: str) -> bool:
        """Whether `wanted` means it: by name, or by address."""
        return wanted.lower() in {self.name.lower(), self.address.lower()}
