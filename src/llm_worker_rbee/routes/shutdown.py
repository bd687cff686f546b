"""Stop this worker."""

from fastapi import APIRouter

from llm_worker_rbee.dependencies import ServicesDep
from rbee_shared.narration import correlation_id

router = APIRouter()


@router.post("/shutdown", status_code=202)
@router.post("/v1/shutdown", status_code=202, include_in_schema=False)
async def shutdown(services: ServicesDep) -> dict[str, str]:
    """Answered at once; then running answers get a few seconds, the memory is freed and the process exits with 0."""
    services.stopping.request("asked to over HTTP", correlation_id=correlation_id.get())
    return {"status": "shutting_down"}
