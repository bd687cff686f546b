"""The hive's HTTP app: routes and services put together."""

from fastapi import FastAPI

from rbee_hive.routes import (
    control,
    devices,
    events,
    health,
    heartbeats,
    models,
    operations,
    provisions,
    workers,
)
from rbee_hive.services import Services
from rbee_shared.http_app import new_app
from rbee_shared.version import __version__


def create_app(services: Services) -> FastAPI:
    """An app that serves `services`."""
    app = new_app(
        "rbee-hive",
        __version__,
        source=f"rbee-hive@{services.settings.name}",
        body_s=services.daemon.clocks.body_s,
    )
    app.state.services = services
    for part in (health, devices, models, provisions, workers, heartbeats, events, operations, control):
        app.include_router(part.router)
    return app
