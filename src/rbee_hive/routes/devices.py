"""What this node has, and whether a model would fit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from rbee_hive.dependencies import ServicesDep, require_token
from rbee_hive.devices import detect
from rbee_shared.contracts.nodes import Devices

router = APIRouter(dependencies=[Depends(require_token)])


@router.get("/v1/devices")
@router.get("/devices", include_in_schema=False)
async def devices(services: ServicesDep) -> Devices:
    return Devices(
        cpu=await detect.cpu_device(), models=len(services.catalog.ids), workers=len(services.registry.live())
    )


@router.get("/v1/capacity", status_code=204)
@router.get("/capacity", status_code=204, include_in_schema=False)
async def capacity(
    services: ServicesDep,
    model: Annotated[str, Query(min_length=1, max_length=1024)],
    device: Annotated[str | None, Query(max_length=255)] = None,
    backend: Annotated[str | None, Query(max_length=32)] = None,
) -> Response:
    """204 there is room, 409 there is not; both numbers either way."""
    row = await services.catalog.find(model)
    room = await services.room(row, services.device(backend, device))
    return Response(
        status_code=204,
        headers={"X-Rbee-Required-Bytes": str(room.required_bytes), "X-Rbee-Free-Bytes": str(room.free_bytes)},
    )
