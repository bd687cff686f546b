"""Whom this hive belongs to, and its end."""

from typing import Annotated

from fastapi import APIRouter, Depends

from rbee_hive.dependencies import ServicesDep, require_epoch, require_token
from rbee_hive.domain.ownership import Queen
from rbee_shared.contracts.nodes import AdoptRequest
from rbee_shared.http_app import json_body
from rbee_shared.narration import correlation_id

router = APIRouter(dependencies=[Depends(require_token)])


@router.post("/v1/adopt")
async def adopt(
    order: Annotated[AdoptRequest, Depends(json_body(AdoptRequest))], services: ServicesDep
) -> dict[str, str]:
    """A queen takes a waiting hive, or takes hers again; it lives as long as she answers its heartbeats.

    Her epoch stands in the order: against another queen's it means nothing.
    """
    services.require_open()
    services.link.adopt(Queen(order.queen_url.rstrip("/"), order.queen_id, order.epoch, order.queen_token))
    return {"status": "adopted", "name": services.settings.name, "instance": services.daemon.instance}


@router.post("/shutdown", status_code=202, dependencies=[Depends(require_epoch)])
@router.post("/v1/shutdown", status_code=202, include_in_schema=False, dependencies=[Depends(require_epoch)])
async def shutdown(services: ServicesDep) -> dict[str, str]:
    services.daemon.stopping.request("asked over HTTP", correlation_id=correlation_id.get())
    return {"status": "shutting_down"}
