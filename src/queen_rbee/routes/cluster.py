"""What the cluster is made of and what it says: workers, nodes, narration; and what hives report."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from queen_rbee.dependencies import ServicesDep, local_or_token, with_token
from rbee_shared.contracts.nodes import HeartbeatAnswer, HiveHeartbeat
from rbee_shared.contracts.workers import WorkerReady, WorkerView
from rbee_shared.errors import ShuttingDownError
from rbee_shared.http_app import json_body
from rbee_shared.sse_response import EventStream, last_event_id

router = APIRouter()


@router.get("/v2/workers", dependencies=[Depends(with_token)])
async def workers(services: ServicesDep) -> dict[str, tuple[WorkerView, ...]]:
    """The routing view of every worker."""
    return {"workers": services.matchmaker.workers.views()}


@router.get("/v2/events", dependencies=[Depends(with_token)])
@router.get("/events", dependencies=[Depends(with_token)], include_in_schema=False)
async def events(request: Request, services: ServicesDep) -> Response:
    """Narration of the whole cluster, from now or after `Last-Event-ID`."""
    log, clocks = services.daemon.hub.events, services.daemon.clocks
    after = last_event_id(request) if "last-event-id" in request.headers else log.last_id
    log.require_kept(after)
    return EventStream(log.follow(after, ping_s=clocks.sse_ping_s), slow_client_s=clocks.slow_client_s)


@router.get("/v2/hold", dependencies=[Depends(local_or_token)])
async def hold(services: ServicesDep) -> Response:
    """Keep an ephemeral queen awake for as long as this connection is open."""
    daemon = services.daemon
    if daemon.stopping.is_requested:
        raise ShuttingDownError("the queen is shutting down")
    stream = services.holds.stream(daemon.clocks.sse_ping_s)
    return EventStream(stream, slow_client_s=daemon.clocks.slow_client_s)


@router.post("/v1/heartbeat", dependencies=[Depends(with_token)])
@router.post("/heartbeat", dependencies=[Depends(with_token)], include_in_schema=False)
async def heartbeat(
    beat: Annotated[HiveHeartbeat, Depends(json_body(HiveHeartbeat))], request: Request, services: ServicesDep
) -> HeartbeatAnswer:
    """A hive reports; the answer keeps its lease. Its lines that came before are read before its facts are used."""
    epoch = await services.reports.heartbeat(beat, peer=request.client.host if request.client else None)
    return HeartbeatAnswer(
        epoch=epoch or beat.epoch or 0, adopted=epoch is not None, queen_id=services.identity.queen_id
    )


@router.post("/v1/orchestrator/worker-ready", dependencies=[Depends(with_token)])
async def worker_ready(
    ready: Annotated[WorkerReady, Depends(json_body(WorkerReady))], services: ServicesDep
) -> dict[str, str]:
    """A hive says that a worker can serve; heartbeats carry the same fact, whichever comes first wins."""
    return {"status": "ok" if await services.reports.worker_ready(ready) else "unknown"}
