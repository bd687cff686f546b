"""The model catalog over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from rbee_hive.dependencies import ServicesDep, require_epoch, require_token
from rbee_shared.contracts.models import (
    ImportRequest,
    ModelChange,
    ModelList,
    ModelRow,
    RegisterRequest,
    Removal,
    Verification,
)
from rbee_shared.http_app import json_body

router = APIRouter(dependencies=[Depends(require_token), Depends(require_epoch)])


@router.get("/v1/models")
async def models(
    services: ServicesDep, model: Annotated[str | None, Query(min_length=1, max_length=1024)] = None
) -> ModelList:
    """Every row; with `model` the one that this id, alias or reference means, if there is one."""
    if model is None:
        return ModelList(models=await services.catalog.rows())
    row = await services.library.look_up(model)
    return ModelList(models=() if row is None else (row,))


@router.post("/v1/models/register", status_code=201)
async def register(
    order: Annotated[RegisterRequest, Depends(json_body(RegisterRequest))], services: ServicesDep
) -> ModelRow:
    """A row for a repository of the Hub, without a file: fetched when somebody asks for it."""
    services.require_open()
    return await services.library.register(order)


@router.post("/v1/models/import")
async def import_model(
    order: Annotated[ImportRequest, Depends(json_body(ImportRequest))], services: ServicesDep
) -> ModelRow:
    """Catalog a file that lies on this node; the same path again is the same row."""
    services.require_open()
    return await services.library.take_in(order)


@router.get("/v1/models/{model_id}")
async def model(model_id: str, services: ServicesDep) -> ModelRow:
    return await services.catalog.get(model_id)


@router.patch("/v1/models/{model_id}")
async def change(
    model_id: str, order: Annotated[ModelChange, Depends(json_body(ModelChange))], services: ServicesDep
) -> ModelRow:
    """Name, aliases, pin."""
    services.require_open()
    row = await services.catalog.change(model_id, name=order.name, pinned=order.pinned, aliases=order.aliases)
    services.pin_workers(row)
    return row


@router.delete("/v1/models/{model_id}")
async def remove(model_id: str, services: ServicesDep, *, files: bool = False) -> Removal:
    """Forget the row; with `files=true` its files are deleted too."""
    services.require_open()
    return await services.library.remove(model_id, files=files, in_use=services.model_paths_in_use)


@router.post("/v1/models/{model_id}/verify")
async def verify(model_id: str, services: ServicesDep) -> Verification:
    """Hash its files anew and compare. Reads all of them: a 40 GB model takes minutes."""
    return await services.library.verify(model_id)
