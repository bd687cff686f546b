"""Is the model loaded, and how far is it."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from llm_worker_rbee.dependencies import ServicesDep
from rbee_shared.sse_response import EventStream

router = APIRouter()
_PROGRESS_PATH = "/v1/loading/progress"


@router.get("/v1/ready", response_class=Response)
async def ready(services: ServicesDep) -> Response:
    """204 once a token was decoded; until then 503 with the address of the progress."""
    if services.load.model is not None and not services.stopping.is_requested:
        return Response(status_code=204)
    body = {"ready": False, "state": services.state, "progress_url": _PROGRESS_PATH}
    return JSONResponse(body, status_code=503)


@router.get(_PROGRESS_PATH, response_class=EventStream)
async def loading_progress(services: ServicesDep) -> EventStream:
    """`progress` events until the model is loaded, then `end`."""
    clocks = services.clocks
    return EventStream(services.load.follow(clocks.sse_ping_s), slow_client_s=clocks.slow_client_s)
