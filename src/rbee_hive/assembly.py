"""Puts the hive's parts together, each a block inside the one it needs, and runs what goes on in the background."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from rbee_hive import model_files
from rbee_hive.domain.idle import idle_too_long
from rbee_hive.model_catalog import ModelCatalog
from rbee_hive.queen_client import Me, QueenLink, became_ready
from rbee_hive.services import Services
from rbee_hive.settings import HiveSettings
from rbee_hive.worker_lifecycle import Surroundings, Worker
from rbee_hive.worker_registry import WorkerRegistry
from rbee_shared.daemon import Daemon
from rbee_shared.errors import RbeeError
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narrator
from rbee_shared.sqlite import Quarantined


@asynccontextmanager
async def assembled(daemon: Daemon, settings: HiveSettings, token: str, url: str) -> AsyncGenerator[Services]:
    """All services, running; on leaving the workers that still live are killed."""
    clocks = daemon.clocks
    narrator = Narrator("hive", daemon.hub.publish, node=settings.name)

    def say_damage(moved: Quarantined) -> None:
        narrator.tell("catalog_damaged", str(moved), cute="🩹", level="error", kept_as=str(moved.moved_to))

    async with (
        ModelCatalog.open(daemon.home.models_db, say_damage) as catalog,
        http_client(connect_s=clocks.connect_s, call_s=clocks.control_call_s) as client,
        anyio.create_task_group() as group,
    ):
        await _add_embedded(catalog, narrator)
        from_start = daemon.handshake is not None and daemon.handshake.queen_url is not None
        me = Me(settings.name, url, token, settings.standalone, from_start, settings.queen)
        link = QueenLink(daemon, me, client, catalog)

        def changed(worker: Worker) -> None:
            link.changed()
            if became_ready(worker):
                group.start_soon(link.tell_ready, worker)

        around = Surroundings(daemon.home, clocks, daemon.hub, client, url, settings.name, changed)
        async with WorkerRegistry.open(
            around, kept=settings.ended_workers_kept, kept_s=settings.ended_workers_kept_s
        ) as registry:
            services = Services(daemon, settings, token, catalog, registry, link, narrator)

            async def give_up_workers(queen_url: str) -> None:
                await registry.stop(worker for worker in registry.live() if worker.order.ordered_by == queen_url)

            group.start_soon(link.run, registry)
            group.start_soon(link.watch_lease, give_up_workers)
            group.start_soon(_stop_idle, services)
            yield services
            group.cancel_scope.cancel()


async def _add_embedded(catalog: ModelCatalog, narrator: Narrator) -> None:
    try:
        path = model_files.embedded_model()
        await catalog.add_embedded(await model_files.inspect(str(path), roots=None))
    except RbeeError as error:  # a hive without it still serves every other model
        narrator.tell("embedded_model", f"the embedded model cannot be used: {error.message}", level="warning")


async def _stop_idle(services: Services) -> None:
    """Without a queen nobody else ends idle workers."""
    clocks = services.daemon.clocks
    while True:
        await anyio.sleep(clocks.heartbeat_s)
        if services.link.adopted:
            continue
        for worker_id in idle_too_long(services.registry.records(), time.time(), clocks.idle_worker_s):
            services.narrator.tell("idle_stop", f"worker {worker_id} has been idle too long: stopping it", cute="💤")
            services.registry.get(worker_id).order_stop()
