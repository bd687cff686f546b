"""`GET /v1/events`: all narration of this hive and its workers, as it comes."""

from fastapi import APIRouter, Depends, Request

from rbee_hive.dependencies import ServicesDep, require_token
from rbee_shared.sse_response import EventStream, last_event_id

router = APIRouter(dependencies=[Depends(require_token)])


@router.get("/v1/events")
async def events(request: Request, services: ServicesDep) -> EventStream:
    """From the oldest line that is kept, or after `Last-Event-ID`."""
    log, clocks = services.daemon.hub.events, services.daemon.clocks
    after = last_event_id(request) if "last-event-id" in request.headers else log.horizon
    log.require_kept(after)
    return EventStream(log.follow(after, ping_s=clocks.sse_ping_s), slow_client_s=clocks.slow_client_s)
