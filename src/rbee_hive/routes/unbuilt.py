"""The hive's routes that are still to come: downloads, worker builds, what the catalog cannot do yet."""

from fastapi import APIRouter, Depends

from rbee_hive.dependencies import require_token
from rbee_shared.unbuilt_routes import unbuilt_routes

router = APIRouter(dependencies=[Depends(require_token)])
router.include_router(
    unbuilt_routes(
        "POST /v1/models/provision",
        "POST /models/provision",
        "POST /v1/workers/provision",
        "POST /workers/provision",
        "GET /v1/provisions/{provision_id}/events",
        "GET /models/provision/{provision_id}/events",
        "POST /v1/models/register",
        "DELETE /v1/models/{model_id}",
        "POST /v1/models/{model_id}/verify",
        "GET /v1/builds",
        "DELETE /v1/builds/{build_id}",
        "POST /v1/selftest",
        "GET /v1/logs",
        "GET /v1/status",
        "GET /metrics",
    )
)
