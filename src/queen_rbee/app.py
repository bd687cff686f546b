"""The queen's HTTP apps: her own, and the small one for hives on other machines."""

from fastapi import FastAPI

from queen_rbee.routes import callbacks, cluster, daemon, nodes, pool, tasks, unbuilt
from queen_rbee.services import Services
from rbee_shared.http_app import new_app
from rbee_shared.version import __version__


def create_app(services: Services) -> FastAPI:
    """The app that answers with these services."""
    clocks = services.daemon.clocks
    app = new_app("queen-rbee", __version__, source="queen-rbee", body_s=clocks.body_s)
    app.state.services = services
    for module in (tasks, cluster, nodes, pool, daemon, unbuilt):
        app.include_router(module.router)
    return app


def create_callback_app(services: Services) -> FastAPI:
    """What hives on other machines may call, and nothing else."""
    app = new_app("queen-rbee", __version__, source="queen-rbee", body_s=services.daemon.clocks.body_s)
    app.state.services = services
    app.include_router(callbacks.router)
    return app
