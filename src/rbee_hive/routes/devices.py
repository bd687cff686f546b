"""What this node has, and whether a model would fit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from rbee_hive.dependencies import ServicesDep, require_token
from rbee_hive.domain.fit.capacity import require_room
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.workers.room import Need
from rbee_shared.contracts.nodes import Devices

router = APIRouter(dependencies=[Depends(require_token)])


@router.get("/v1/devices")
@router.get("/devices", include_in_schema=False)
async def devices(services: ServicesDep) -> Devices:
    """What can be found out within 2 s; what could not is named."""
    found = await services.devices.facts(held_bytes(services.registry.records()))
    return Devices(
        cpu=found.cpu,
        gpus=found.gpus,
        models=len(services.catalog.downloaded),
        workers=len(services.registry.live()),
        problems=found.problems,
    )


@router.get("/v1/capacity", status_code=204)
@router.get("/capacity", status_code=204, include_in_schema=False)
async def capacity(
    services: ServicesDep,
    model: Annotated[str, Query(min_length=1, max_length=1024)],
    device: Annotated[str | None, Query(max_length=255)] = None,
    backend: Annotated[str | None, Query(max_length=32)] = None,
    n_ctx: Annotated[int | None, Query(ge=1, le=16_777_216)] = None,
    slots: Annotated[int | None, Query(ge=1, le=256)] = None,
) -> Response:
    """204 there is room, 409 there is not; every number either way."""
    need = Need(services.device(backend, device), n_ctx, slots)
    answer = require_room((await services.assess(model, need)).capacity)
    return Response(
        status_code=204,
        headers={
            "X-Rbee-Capacity": answer.model_dump_json(),
            "X-Rbee-Required-Bytes": str(answer.required_bytes),
            "X-Rbee-Free-Bytes": str(answer.free_bytes),
        },
    )
