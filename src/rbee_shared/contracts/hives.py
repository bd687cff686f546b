"""A hive as a whole, and what becomes of its workers when they are stopped."""

from typing import Any, Literal

from pydantic import Field

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.nodes import Devices
from rbee_shared.contracts.provisions import BuildRow
from rbee_shared.contracts.workers import WorkerRecord, WorkerState


class HiveStatus(Wire):
    """`GET /v1/status`. `started_at` is UNIX time in seconds."""

    name: str
    version: str
    url: str
    instance: str
    queen_url: str | None = None
    queen_id: str | None = None
    adopted: bool = False
    cut_off: bool = Field(default=False, description="Its queen's connection is gone: no new work until she is back.")
    standalone: bool = False
    started_at: float
    devices: Devices
    workers: tuple[WorkerRecord, ...] = ()
    models: int = Field(description="Rows of the catalog.")
    downloaded: int = Field(description="Of them, those whose files are here.")
    builds: tuple[BuildRow, ...] = ()
    provisions: int = Field(default=0, description="Downloads and builds under way.")
    models_dir: str
    disk_free_bytes: int = Field(description="Where the models are.")


class MemoryBack(Wire):
    """What became of a stopped worker's memory."""

    released: bool
    worker_bytes: int | None = None
    free_before_bytes: int | None = None
    free_after_bytes: int | None = None
    holders: tuple[dict[str, Any], ...] = ()


class WorkerFarewell(Wire):
    """`POST /v1/workers/{id}/stop`: it is gone. `error`: that its memory did not come back, or why it had failed."""

    worker_id: str
    state: WorkerState
    memory: MemoryBack | None = None
    error: dict[str, Any] | None = None


class FarewellList(Wire):
    """`POST /v1/workers/stop-all`."""

    workers: tuple[WorkerFarewell, ...]


class DeviceTest(Wire):
    """Whether a device computes: a worker of its own has decoded one token on it. `build`: what served it."""

    id: str
    backend: str
    build: str | None = None
    ok: bool
    seconds: float | None = Field(default=None, description="From the worker's start to its token.")
    error: dict[str, Any] | None = None


class DecodedToken(Wire):
    """What the embedded model said on one device."""

    device: str
    backend: str
    build: str
    text: str


class DiskTest(Wire):
    """Whether a file can be written where the models are."""

    models_dir: str
    free_bytes: int
    ok: bool
    error: str | None = None


class SelfTest(Wire):
    """`POST /v1/selftest`. `ok`: everything in it is."""

    ok: bool
    devices: tuple[DeviceTest, ...]
    disk: DiskTest
    decoded: tuple[DecodedToken, ...] = ()


class HiveFarewell(Wire):
    """`rbee-hive stop --json`: what ran for that home on that machine, and how it ended.

    `how`: there was `none`; it was asked over HTTP; a signal ended it. `workers`: those that it had left behind, ended.
    """

    pid: int | None = None
    how: Literal["none", "asked", "SIGTERM", "SIGKILL"]
    workers: tuple[str, ...] = ()
