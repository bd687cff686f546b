"""What the routes work with: one worker's parts, and its state as others see it."""

from dataclasses import dataclass, field

import anyio.to_thread
import psutil

from llm_worker_rbee.engine_thread import EngineThread
from llm_worker_rbee.jobs import Job, Jobs
from llm_worker_rbee.load_state import LoadState
from llm_worker_rbee.metrics import Metrics
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import ExecuteRequest
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.daemon import Stopping
from rbee_shared.errors import ContextOverflowError, NotReadyError, NotSupportedError, ShuttingDownError


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
    engine: EngineThread
    load: LoadState
    jobs: Jobs
    metrics: Metrics
    stopping: Stopping
    clocks: Clocks

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
        """Memory of a graphics device that the weights take; 0 on the processor."""
        if self.load.device is None or self.load.device.backend == "cpu" or self.load.model is None:
            return 0
        return self.load.model.size_bytes

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

    async def begin(self, job: Job, request: ExecuteRequest) -> None:
        """Tokenize, and hand the job to the engine.

        Raises:
            ContextOverflowError: the prompt alone is longer than the context.
            InvalidRequestError: its messages cannot be put into the model's form.
        """
        assert self.load.model is not None
        tokens = await anyio.to_thread.run_sync(self.engine.tokenize, request)
        n_ctx = self.load.model.n_ctx
        if len(tokens) > n_ctx:
            raise ContextOverflowError(
                f"the prompt has {len(tokens)} tokens, the context holds {n_ctx}",
                details={"prompt_tokens": len(tokens), "n_ctx": n_ctx},
            )
        self.jobs.begin(job, request, tokens)

    def rss_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)
