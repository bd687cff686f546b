"""The queen's parts, wired together, and the tasks that run beside her server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import anyio
import httpx2
from anyio.abc import TaskGroup

from queen_rbee.callbacks import Callbacks
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveRegistry
from queen_rbee.hive_reports import HiveReports
from queen_rbee.holds import Holds
from queen_rbee.identity import Identity
from queen_rbee.idle_reaper import reap_idle_workers
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.nodes.catalog import NodeCatalog
from queen_rbee.nodes.local_waker import LocalWaker
from queen_rbee.nodes.waker import Waker
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.reach import Callback
from queen_rbee.relay import Relay, token_client
from queen_rbee.services import Services
from queen_rbee.settings import QueenSettings
from queen_rbee.supplies import Supplies
from queen_rbee.task_registry import TaskRegistry
from queen_rbee.voices import Voices
from queen_rbee.worker_client import WorkerClient
from queen_rbee.worker_starter import WorkerStarter
from rbee_shared.clocks import boot_time_s
from rbee_shared.contracts.nodes import Transport
from rbee_shared.daemon import Daemon
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narrator
from rbee_shared.sqlite import Quarantined


@dataclass(frozen=True)
class _Outside:
    """What her parts are built on, already open."""

    daemon: Daemon
    settings: QueenSettings
    identity: Identity
    catalog: NodeCatalog
    callbacks: Callbacks
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    group: TaskGroup


@asynccontextmanager
async def assembled(daemon: Daemon, settings: QueenSettings, token: str, url: str) -> AsyncGenerator[Services]:
    """Her parts for the length of the block."""
    clocks, narrator = daemon.clocks, Narrator("queen", daemon.hub.publish)

    def tell_damage(damage: Quarantined) -> None:
        narrator.tell("quarantine", str(damage), cute="🚑", level="warning")

    async with (
        NodeCatalog.open(daemon.home.queen_db, tell_damage) as catalog,
        http_client(connect_s=clocks.connect_s, call_s=clocks.control_call_s) as client,
        token_client(connect_s=clocks.connect_s, silence_s=clocks.sse_ping_s * 3) as session,
        Callbacks.open(clocks) as callbacks,
        anyio.create_task_group() as group,
    ):
        identity = Identity(url, token, await catalog.queen_id())
        services = _assemble(_Outside(daemon, settings, identity, catalog, callbacks, client, session, group))
        group.start_soon(services.reports.watch)
        group.start_soon(reap_idle_workers, services)
        if services.holds.ephemeral:
            group.start_soon(services.holds.watch_spawner)
            group.start_soon(services.holds.watch, daemon.stopping, services.tasks.any_unfinished, clocks.hold_grace_s)
        yield services
        group.cancel_scope.cancel()


def _assemble(outside: _Outside) -> Services:
    daemon, settings, identity, group = outside.daemon, outside.settings, outside.identity, outside.group
    clocks, publish, catalog = daemon.clocks, daemon.hub.publish, outside.catalog
    hives = HiveRegistry(boot_time_s)
    matchmaker = Matchmaker(hives.devices, hives.silent)
    tasks = TaskRegistry(finished_kept=settings.finished_tasks_kept, logs_bytes=settings.task_logs_bytes)
    holds = Holds(ephemeral=daemon.handshake is not None and daemon.handshake.ephemeral)
    voices = Voices(publish, tasks, holds)
    narrator = Narrator("queen", voices.speak)
    contacts = HiveContacts(
        identity=identity,
        catalog=catalog,
        hives=hives,
        workers=matchmaker.workers,
        client=outside.client,
        session=outside.session,
        hear=voices.hear,
        group=group,
    )
    reports = HiveReports(
        clocks=clocks,
        catalog=catalog,
        hives=hives,
        workers=matchmaker.workers,
        contacts=contacts,
        callback=Callback(identity.url),
        narrator=narrator,
        group=group,
    )
    lifecycle = HiveLifecycle(
        clocks=clocks,
        catalog=catalog,
        hives=hives,
        contacts=contacts,
        wakers=_wakers(outside, contacts, voices, narrator),
        narrator=narrator,
    )
    relay = Relay(outside.session, publish)
    worker = WorkerClient(outside.session, relay, matchmaker.workers, clocks, contacts.refresh_workers)
    supplies = Supplies(matchmaker, ProvisionFeed(outside.session, publish))
    dispatcher = Dispatcher(
        settings=settings,
        clocks=clocks,
        tasks=tasks,
        matchmaker=matchmaker,
        lifecycle=lifecycle,
        starter=WorkerStarter(clocks, contacts, matchmaker, worker, supplies),
        worker=worker,
        publish=publish,
        group=group,
    )
    return Services(
        daemon=daemon,
        settings=settings,
        identity=identity,
        catalog=catalog,
        callbacks=outside.callbacks,
        hives=hives,
        matchmaker=matchmaker,
        tasks=tasks,
        dispatcher=dispatcher,
        holds=holds,
        contacts=contacts,
        reports=reports,
        lifecycle=lifecycle,
        narrator=narrator,
    )


def _wakers(outside: _Outside, contacts: HiveContacts, voices: Voices, narrator: Narrator) -> dict[Transport, Waker]:
    """For each kind of node the one that knows how to wake its hive."""
    daemon = outside.daemon
    clocks, arrival = daemon.clocks, HiveArrival(daemon.clocks, contacts)
    local = LocalWaker(
        home=daemon.home,
        clocks=clocks,
        identity=outside.identity,
        arrival=arrival,
        port=outside.settings.hive_port,
        hear=voices.hear,
        stopping=lambda: daemon.stopping.is_requested,
        group=outside.group,
    )
    return {"local": local}
