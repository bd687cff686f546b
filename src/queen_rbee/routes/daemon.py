"""The queen herself: is she well, and please stop."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request

from queen_rbee.dependencies import ServicesDep, local_or_token, with_token
from rbee_shared.narration import correlation_id
from rbee_shared.version import __version__

router = APIRouter()


@router.get("/health")
async def health(services: ServicesDep) -> dict[str, Any]:
    """Anyone may ask."""
    daemon = services.daemon
    return {
        "status": "shutting_down" if daemon.stopping.is_requested else "healthy",
        "program": daemon.program,
        "instance": daemon.instance,
        "version": __version__,
        "ephemeral": services.holds.ephemeral,
        "pools": len(services.hives.all()),
        "workers": len(services.matchmaker.workers.facts()),
        "queue_depth": len(services.tasks.waiting_models()),
    }


@router.get("/openapi.json", dependencies=[Depends(local_or_token)], include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """Her routes for programs that read OpenAPI."""
    app = request.app
    assert isinstance(app, FastAPI)
    return app.openapi()


@router.post("/shutdown", status_code=202, dependencies=[Depends(with_token)])
@router.post("/v1/shutdown", status_code=202, dependencies=[Depends(with_token)], include_in_schema=False)
async def shutdown(services: ServicesDep, hold: str | None = None, *, cascade: bool = True) -> dict[str, Any]:
    """Stop, and with `cascade` the adopted hives too. With `hold`: only if that was the last hold on her."""
    if hold is not None and services.holds.ephemeral:
        left = services.holds.release(hold)
        if left or any(services.tasks.unfinished()):
            return {"status": "held", "holds": left}
    services.daemon.stopping.request("asked to", cascade=cascade, correlation_id=correlation_id.get())
    return {"status": "shutting_down"}
