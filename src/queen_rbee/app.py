"""The queen's HTTP app."""

from fastapi import FastAPI

from queen_rbee.routes import cluster, daemon, tasks, unbuilt
from queen_rbee.services import Services
from rbee_shared.http_app import new_app
from rbee_shared.version import __version__


def create_app(services: Services) -> FastAPI:
    """The app that answers with these services."""
    clocks = services.daemon.clocks
    app = new_app("queen-rbee", __version__, source="queen-rbee", body_s=clocks.body_s)
    app.state.services = services
    for module in (tasks, cluster, daemon, unbuilt):
        app.include_router(module.router)
    return app
