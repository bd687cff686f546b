"""The hive's routes that are still to come."""

from fastapi import APIRouter, Depends

from rbee_hive.dependencies import require_token
from rbee_shared.unbuilt_routes import unbuilt_routes

router = APIRouter(dependencies=[Depends(require_token)])
router.include_router(unbuilt_routes("POST /v1/selftest"))
