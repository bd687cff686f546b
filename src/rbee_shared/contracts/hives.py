"""A hive as a whole, and what becomes of its workers when they are stopped."""

from typing import Any

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
    adopted: bool = False
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
