"""What the queen knows when she decides: a frozen picture of the cluster, taken without an await."""

from dataclasses import dataclass

from rbee_shared.contracts.workers import WorkerState


@dataclass(frozen=True)
class DeviceFacts:
    """One place where a worker could run. `id` is `cpu`, `gpu1`, …; unique on its node.

    `build`: the kind of worker build that serves it, where that is not its backend's.
    """

    node: str
    id: str
    backend: str
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    build: str | None = None

    @property
    def build_kind(self) -> str:
        return self.build or self.backend


@dataclass(frozen=True)
class WorkerFacts:
    """One worker. `slots_free` already counts what the queen has promised; `in_use`: she has promised something.

    `pinned`: it stays however long it is idle.
    """

    id: str
    node: str
    model_ref: str
    backend: str
    device: str
    state: WorkerState
    slots_free: int
    idle_since_s: float
    in_use: bool = False
    pinned: bool = False


@dataclass(frozen=True)
class Load:
    """A worker that is being started for a model, and is not ready yet."""

    node: str
    model_ref: str
    device: str


@dataclass(frozen=True)
class Cluster:
    """Everything at one moment. `silent`: nodes that have missed some heartbeats and may yet come back."""

    devices: tuple[DeviceFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] = ()
    loads: tuple[Load, ...] = ()
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wish:
    """What a task asks for. `device` is an index, an id such as `cuda:1` or `gpu1`, or None for any.

    `node` None: any of them; it is chosen before a worker is.
    """

    model_ref: str
    node: str | None
    backend: str | None = None
    device: int | str | None = None
