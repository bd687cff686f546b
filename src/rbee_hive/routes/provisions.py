"""Fetching models and making worker builds: asked for, followed, cancelled."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from rbee_hive.dependencies import ServicesDep, require_epoch, require_token
from rbee_hive.provisions import Provision
from rbee_shared.contracts.models import ModelProvisionRequest
from rbee_shared.contracts.provisions import BuildList, BuildRow, ProvisionAnswer, WorkerProvisionRequest
from rbee_shared.http_app import json_body
from rbee_shared.sse_response import EventStream, last_event_id

router = APIRouter(dependencies=[Depends(require_token), Depends(require_epoch)])


@router.post("/v1/models/provision", status_code=202)
@router.post("/models/provision", status_code=202, include_in_schema=False)
async def provision_model(
    order: Annotated[ModelProvisionRequest, Depends(json_body(ModelProvisionRequest))], services: ServicesDep
) -> ProvisionAnswer:
    """Have the model on this node: found, or fetched; whoever asks for the same meanwhile shares it."""
    services.require_taking_work()
    return _answer(await services.provision_model(order))


@router.post("/v1/workers/provision", status_code=202)
@router.post("/workers/provision", status_code=202, include_in_schema=False)
async def provision_build(
    order: Annotated[WorkerProvisionRequest, Depends(json_body(WorkerProvisionRequest))], services: ServicesDep
) -> ProvisionAnswer:
    """Have a worker build of that kind: found, installed from a wheel, or compiled."""
    services.require_taking_work()
    return _answer(await services.provision_build(order))


@router.get("/v1/provisions/{provision_id}/events")
@router.get("/models/provision/{provision_id}/events", include_in_schema=False)
async def events(provision_id: str, request: Request, services: ServicesDep) -> EventStream:
    """From the beginning, or after `Last-Event-ID`. When the last reader leaves, the work is cancelled."""
    provision, clocks, after = services.provisions.get(provision_id), services.daemon.clocks, last_event_id(request)
    provision.log.require_kept(after)
    frames = provision.log.follow(after, ping_s=clocks.sse_ping_s)
    return EventStream(frames, slow_client_s=clocks.slow_client_s, ended=provision.attend())


@router.delete("/v1/provisions/{provision_id}", status_code=202)
async def cancel(provision_id: str, services: ServicesDep) -> dict[str, str]:
    """End it for everybody; what was fetched so far is kept. Harmless when it has ended."""
    services.provisions.get(provision_id).scope.cancel()
    return {"status": "cancelling"}


@router.get("/v1/builds")
async def builds(services: ServicesDep) -> BuildList:
    return BuildList(builds=await services.builds.rows())


@router.delete("/v1/builds/{build_id}")
async def remove_build(build_id: str, services: ServicesDep) -> BuildRow:
    """Delete a worker build that no worker runs."""
    services.require_open()
    return await services.builds.remove(build_id)


def _answer(provision: Provision) -> ProvisionAnswer:
    return ProvisionAnswer(
        provision_id=provision.id, events_url=f"/v1/provisions/{provision.id}/events", done=provision.is_ended
    )
