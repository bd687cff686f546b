"""The queen's routes that are still to come; who may ask for them is settled already."""

from fastapi import APIRouter, Depends

from queen_rbee.dependencies import local_or_token, with_token
from rbee_shared.unbuilt_routes import unbuilt_routes

_FOR_PROGRAMS_HERE = (
    "POST /v2/plan",
    "GET /v1/models",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
)
_WITH_TOKEN = (
    "GET|DELETE /v2/sessions/{session_id}",
    "GET /metrics",
)

router = APIRouter()
router.include_router(unbuilt_routes(*_FOR_PROGRAMS_HERE), dependencies=[Depends(local_or_token)])
router.include_router(unbuilt_routes(*_WITH_TOKEN), dependencies=[Depends(with_token)])
