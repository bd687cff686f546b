"""The worker's HTTP app, made around its services."""

from fastapi import Depends, FastAPI

from llm_worker_rbee.dependencies import caller_is_allowed
from llm_worker_rbee.routes import execute, health, metrics, ready, shutdown, unbuilt
from llm_worker_rbee.services import Services
from rbee_shared.http_app import new_app
from rbee_shared.version import __version__

_GUARDED = (execute, ready, metrics, shutdown, unbuilt)


def create_app(services: Services) -> FastAPI:
    """The routes; every one but `/health` asks who is calling."""
    source = f"llm-worker-rbee {services.identity.worker_id}"
    app = new_app("llm-worker-rbee", __version__, source=source, body_s=services.clocks.body_s)
    app.state.services = services
    app.include_router(health.router)
    for module in _GUARDED:
        app.include_router(module.router, dependencies=[Depends(caller_is_allowed)])
    return app
