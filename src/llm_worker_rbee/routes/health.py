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
    """Always 200 while the event loop lives. `memory`, by part, is there once the model is loaded."""
    now = services.gauges()
    return {
        "status": _STATUS.get(services.state, "healthy"),
        "program": PROGRAM,
        "instance": services.identity.instance,
        "version": __version__,
        "vram_bytes": services.vram_bytes,
        "rss_bytes": now.resident_memory_bytes,
        "memory": now.memory.model_dump() if now.memory is not None else None,
        "kv_cells": now.kv_cells,
        "kv_cells_used": now.kv_cells_used,
        "slots_total": now.slots,
        "slots_busy": now.slots_busy,
        "model_ref": services.identity.model_ref,
    }
