"""The model catalog over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from rbee_hive import model_files
from rbee_hive.dependencies import ServicesDep, require_token
from rbee_shared.contracts.models import ImportRequest, ModelList, ModelRow
from rbee_shared.http_app import json_body

router = APIRouter(dependencies=[Depends(require_token)])


@router.get("/v1/models")
async def models(services: ServicesDep) -> ModelList:
    return ModelList(models=await services.catalog.rows())


@router.get("/v1/models/{model_id}")
async def model(model_id: str, services: ServicesDep) -> ModelRow:
    return await services.catalog.get(model_id)


@router.post("/v1/models/import")
async def import_model(
    order: Annotated[ImportRequest, Depends(json_body(ImportRequest))], services: ServicesDep
) -> ModelRow:
    """Catalog a file that lies on this node; the same path again is the same row."""
    services.require_open()
    roots = None if order.anywhere else (services.daemon.home.models, *services.settings.model_roots)
    return await services.catalog.add_file(await model_files.inspect(order.path, roots=roots))
