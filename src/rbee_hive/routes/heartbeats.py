"""What workers tell: that they live, and that they are ready. Each proves itself with its own key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from rbee_hive.dependencies import ServicesDep, WorkerKeyDep
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerReady
from rbee_shared.http_app import json_body

router = APIRouter()
_TAKEN = {"status": "ok"}


@router.post("/v1/heartbeat/workers")
@router.post("/heartbeat/workers", include_in_schema=False)
async def heartbeat(
    key: WorkerKeyDep, beat: Annotated[WorkerHeartbeat, Depends(json_body(WorkerHeartbeat))], services: ServicesDep
) -> dict[str, str]:
    """The answer is what keeps the worker's lease."""
    await services.registry.calling(beat.worker_id, key).heartbeat(beat)
    return _TAKEN


@router.post("/v1/workers/ready")
async def ready(
    key: WorkerKeyDep, message: Annotated[WorkerReady, Depends(json_body(WorkerReady))], services: ServicesDep
) -> dict[str, str]:
    await services.registry.calling(message.worker_id, key).ready(message.narrated, message.memory)
    return _TAKEN
