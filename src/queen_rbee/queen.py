"""The queen's life, as blocks: bind, open the catalog, build her parts, serve until told to stop, stop the cluster."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import anyio
import httpx2
from anyio.abc import TaskGroup

from queen_rbee.app import create_app
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.hive_catalog import HiveCatalog
from queen_rbee.hive_lifecycle import LOCAL_NODE, HiveLifecycle
from queen_rbee.hive_registry import HiveRegistry
from queen_rbee.holds import Holds
from queen_rbee.identity import Identity
from queen_rbee.idle_reaper import reap_idle_workers
from queen_rbee.local_launcher import LocalLauncher
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.relay import Relay, token_client
from queen_rbee.services import Services
from queen_rbee.settings import QueenSettings
from queen_rbee.supplies import Supplies
from queen_rbee.task_registry import TaskRegistry
from queen_rbee.voices import Voices
from queen_rbee.worker_client import WorkerClient
from queen_rbee.worker_starter import WorkerStarter
from rbee_shared.auth import read_or_make_token, read_token
from rbee_shared.clocks import boot_time_s
from rbee_shared.daemon import Daemon
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narrator, correlation_id
from rbee_shared.run_file import run_file
from rbee_shared.server import bind, serving, url_of
from rbee_shared.sqlite import Quarantined

_LAST_WORDS_S = 2.0


@dataclass(frozen=True)
class _Outside:
    """What her parts are built on, already open."""

    daemon: Daemon
    settings: QueenSettings
    identity: Identity
    catalog: HiveCatalog
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    group: TaskGroup


async def live(daemon: Daemon, settings: QueenSettings, token_file: Path | None) -> None:
    """Serve until `daemon.stopping`; every hive she woke is gone when this returns."""
    listener = bind(settings.bind, settings.port)
    url = url_of(listener)
    token = read_token(token_file) if token_file else read_or_make_token(daemon.home.token)
    async with (
        _opened(daemon, settings, token, url) as services,
        serving(create_app(services), listener, header_s=daemon.clocks.header_s, drain_s=_LAST_WORDS_S),
    ):
        with run_file(daemon.home.run_file("queen-rbee"), url=url, instance=daemon.instance):
            daemon.hub.announce("listening", url=url, instance=daemon.instance)
            services.narrator.tell("listening", f"queen is awake on {url}", cute="👑")
            await daemon.stopping.requested.wait()
        await shut_down(services)


@asynccontextmanager
async def _opened(daemon: Daemon, settings: QueenSettings, token: str, url: str) -> AsyncGenerator[Services]:
    """Her parts, and the tasks that run beside the server."""
    clocks, narrator = daemon.clocks, Narrator("queen", daemon.hub.publish)

    def tell_damage(damage: Quarantined) -> None:
        narrator.tell("quarantine", str(damage), cute="🚑", level="warning")

    async with (
        HiveCatalog.open(daemon.home.queen_db, tell_damage) as catalog,
        http_client(connect_s=clocks.connect_s, call_s=clocks.control_call_s) as client,
        token_client(connect_s=clocks.connect_s, silence_s=clocks.sse_ping_s * 3) as session,
        anyio.create_task_group() as group,
    ):
        identity = Identity(url, token, await catalog.begin_epoch())
        services = _assemble(_Outside(daemon, settings, identity, catalog, client, session, group))
        group.start_soon(services.lifecycle.watch)
        group.start_soon(reap_idle_workers, services)
        if services.holds.ephemeral:
            group.start_soon(services.holds.watch_spawner)
            group.start_soon(services.holds.watch, daemon.stopping, services.tasks.any_unfinished, clocks.hold_grace_s)
        yield services
        group.cancel_scope.cancel()


def _assemble(outside: _Outside) -> Services:
    """Wire her parts together."""
    daemon, settings, identity = outside.daemon, outside.settings, outside.identity
    clocks, publish = daemon.clocks, daemon.hub.publish
    hives = HiveRegistry(boot_time_s)
    matchmaker = Matchmaker(hives.devices, hives.silent)
    tasks = TaskRegistry(finished_kept=settings.finished_tasks_kept, logs_bytes=settings.task_logs_bytes)
    holds = Holds(ephemeral=daemon.handshake is not None and daemon.handshake.ephemeral)
    voices = Voices(publish, tasks, holds, LOCAL_NODE)
    narrator = Narrator("queen", voices.speak)
    lifecycle = HiveLifecycle(
        home=daemon.home,
        clocks=clocks,
        identity=identity,
        catalog=outside.catalog,
        hives=hives,
        workers=matchmaker.workers,
        launcher=LocalLauncher(
            home=daemon.home,
            clocks=clocks,
            identity=identity,
            port=settings.hive_port,
            node=LOCAL_NODE,
            hear=voices.hear,
            stopping=lambda: daemon.stopping.is_requested,
        ),
        client=outside.client,
        session=outside.session,
        narrator=narrator,
        group=outside.group,
    )
    relay = Relay(outside.session, publish)
    worker = WorkerClient(outside.session, relay, matchmaker.workers, clocks, lifecycle.refresh_workers)
    supplies = Supplies(matchmaker, ProvisionFeed(outside.session, publish))
    dispatcher = Dispatcher(
        settings=settings,
        clocks=clocks,
        tasks=tasks,
        matchmaker=matchmaker,
        lifecycle=lifecycle,
        starter=WorkerStarter(clocks, lifecycle, matchmaker, worker, supplies),
        worker=worker,
        publish=publish,
        group=outside.group,
    )
    return Services(
        daemon=daemon,
        settings=settings,
        identity=identity,
        catalog=outside.catalog,
        hives=hives,
        matchmaker=matchmaker,
        tasks=tasks,
        dispatcher=dispatcher,
        holds=holds,
        lifecycle=lifecycle,
        narrator=narrator,
    )


async def shut_down(services: Services) -> None:
    """Take nothing new, stop the hives in parallel, say goodbye. Bounded; streams are told before they are cut."""
    daemon, narrator = services.daemon, services.narrator
    correlation_id.set(daemon.stopping.correlation_id)
    services.holds.leave()
    with anyio.move_on_after(daemon.clocks.queen_drain_s):
        services.dispatcher.abandon_waiting()
        if services.hives.all():
            narrator.tell("stop_hives", "shutting down hives", cute="🌙")
        await services.lifecycle.stop_all(cascade=daemon.stopping.cascade)
    narrator.tell("goodbye", "goodbye", cute="👋")
    for task in list(services.tasks.unfinished()):
        services.dispatcher.give_up(task)
    services.holds.farewell()
    daemon.hub.events.close()
