"""What the routes work with: one worker's parts, and its state as others see it."""

from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import psutil

from llm_worker_rbee.domain.engine_events import Order
from llm_worker_rbee.engine_thread import EngineThread
from llm_worker_rbee.job import Job
from llm_worker_rbee.jobs import Jobs
from llm_worker_rbee.load_state import LoadState
from llm_worker_rbee.metrics import Gauges, Metrics
from llm_worker_rbee.model_file import ModelFile
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import ExecuteRequest
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.daemon import Stopping
from rbee_shared.errors import ModelMismatchError, NotReadyError, NotSupportedError, ShuttingDownError

_PREPARED_AT_ONCE = 16  # threads that are not taken from those that a shutdown needs


@dataclass(frozen=True)
class Identity:
    """Who this worker is in the cluster. `api_key`: what callers must show; None when it serves alone."""

    worker_id: str
    model_ref: str
    instance: str
    api_key: str | None = field(repr=False)


@dataclass
class Services:
    """One per process, on `app.state.services`."""

    identity: Identity
    file: ModelFile
    engine: EngineThread
    load: LoadState
    jobs: Jobs
    metrics: Metrics
    stopping: Stopping
    clocks: Clocks
    preparing: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_PREPARED_AT_ONCE))
    hashing: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    @property
    def state(self) -> WorkerState:
        if self.stopping.is_requested:
            return WorkerState.DRAINING
        if self.load.model is None:
            return WorkerState.LOADING
        return WorkerState.BUSY if self.jobs.busy else WorkerState.IDLE

    @property
    def device_id(self) -> str:
        return self.load.device.id if self.load.device is not None else "unknown"

    @property
    def vram_bytes(self) -> int:
        """Memory of a graphics device that the model takes; 0 on the processor."""
        return self.load.model.device_bytes if self.load.model is not None else 0

    def admit(self, request: ExecuteRequest) -> Job:
        """Take a slot for `request`, before anything is computed for it.

        Raises:
            NotSupportedError: it asks for what this version does not do.
            ShuttingDownError, NotReadyError: not now.
            AlreadyExistsError, AllSlotsBusyError: see `Jobs.admit`.
        """
        if request.unbuilt_fields:
            raise NotSupportedError(f"not built yet: {', '.join(request.unbuilt_fields)}")
        if self.stopping.is_requested:
            raise ShuttingDownError("this worker is shutting down")
        if self.load.model is None:
            raise NotReadyError("the model is still loading", details={"progress_url": "/v1/loading/progress"})
        return self.jobs.admit(request.job_id)

    async def prepare(self, job: Job, request: ExecuteRequest) -> Order:
        """Make the engine's order of a request.

        Raises:
            ModelMismatchError: the answer to go on with was begun with another file.
            ContextOverflowError, InvalidRequestError: see `engine.preparing`.
        """
        if request.resume is not None and request.resume.sha256 is not None:
            sha256 = await anyio.to_thread.run_sync(self.file.sha256, limiter=self.hashing)
            if sha256 != request.resume.sha256:
                details = {"sha256": sha256, "begun_with": request.resume.sha256}
                raise ModelMismatchError("the answer was begun with another model file", details=details)
        return await anyio.to_thread.run_sync(self.engine.prepare, request, job.key, limiter=self.preparing)

    def gauges(self) -> Gauges:
        model = self.load.model
        return Gauges(
            slots=self.jobs.slots,
            slots_busy=self.jobs.busy,
            waiting=self.jobs.waiting,
            kv_cells=model.n_ctx if model is not None else 0,
            kv_cells_used=self.engine.kv_cells_used,
            engine_steps=self.engine.steps,
            resident_memory_bytes=self.rss_bytes(),
            memory=model.memory if model is not None else None,
        )

    def rss_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)
