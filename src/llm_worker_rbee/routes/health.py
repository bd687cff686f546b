"""Is the process up. The one route without a key."""

from typing import Any

from fastapi import APIRouter

from llm_worker_rbee.dependencies import ServicesDep
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.version import __version__

router = APIRouter()
PROGRAM = "llm-worker-rbee"
_STATUS = {WorkerState.LOADING: "loading", WorkerState.DRAINING: "draining"}


@router.get("/health")
async def health(services: ServicesDep) -> dict[str, Any]:
    """Always 200 while the event loop lives."""
    return {
        "status": _STATUS.get(services.state, "healthy"),
        "program": PROGRAM,
        "instance": services.identity.instance,
        "version": __version__,
        "vram_bytes": services.vram_bytes,
        "rss_bytes": services.rss_bytes(),
        "slots_total": services.jobs.slots,
        "slots_busy": services.jobs.busy,
        "model_ref": services.identity.model_ref,
    }
