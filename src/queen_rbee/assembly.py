"""The queen's parts, wired together, and the tasks that run beside her server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from queen_rbee.callbacks import Callbacks
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.errands import Errands
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_ending import HiveEnding
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveRegistry
from queen_rbee.hive_reports import HiveReports
from queen_rbee.holds import Holds
from queen_rbee.identity import Identity
from queen_rbee.idle_reaper import reap_idle_workers
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_views import NodeViews
from queen_rbee.outside import Outside
from queen_rbee.pool_proxy import PoolProxy
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.reach import Callback
from queen_rbee.relay import Relay, token_client
from queen_rbee.services import Services
from queen_rbee.settings import QueenSettings
from queen_rbee.supplies import Supplies
from queen_rbee.task_registry import TaskRegistry
from queen_rbee.voices import Voices
from queen_rbee.ways import Ways
from queen_rbee.worker_client import WorkerClient
from queen_rbee.worker_starter import WorkerStarter
from rbee_shared.clocks import boot_time_s
from rbee_shared.daemon import Daemon
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narrator
from rbee_shared.sqlite import Quarantined


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
        Callbacks.open(daemon.home.run, clocks) as callbacks,
        anyio.create_task_group() as group,
    ):
        identity = Identity(url, token, await catalog.queen_id())
        services = _assemble(Outside(daemon, settings, identity, catalog, callbacks, client, session, group))
        for node in await catalog.nodes():
            services.hives.drain(node.name, drained=node.drained)

        def is_working() -> bool:
            return services.tasks.any_unfinished() or services.errands.any_running()

        group.start_soon(services.reports.watch)
        group.start_soon(services.lifecycle.ending.end_the_hanging)
        group.start_soon(reap_idle_workers, services)
        if services.holds.ephemeral:
            group.start_soon(services.holds.watch_spawner)
            group.start_soon(services.holds.watch, daemon.stopping, is_working, clocks.hold_grace_s)
        else:
            group.start_soon(services.lifecycle.look_for_hives)
        yield services
        group.cancel_scope.cancel()


def _assemble(outside: Outside) -> Services:
    daemon, settings, group = outside.daemon, outside.settings, outside.group
    clocks, publish = daemon.clocks, daemon.hub.publish
    hives = HiveRegistry(boot_time_s)
    matchmaker = Matchmaker(hives.devices, hives.silent)
    tasks = TaskRegistry(finished_kept=settings.finished_tasks_kept, logs_bytes=settings.task_logs_bytes)
    errands = Errands(publish, clocks.silence_s, group)
    holds = Holds(ephemeral=daemon.handshake is not None and daemon.handshake.ephemeral)
    voices = Voices(publish, tasks, errands, holds)
    narrator = Narrator("queen", voices.speak)
    contacts = HiveContacts(
        identity=outside.identity,
        catalog=outside.catalog,
        hives=hives,
        workers=matchmaker.workers,
        client=outside.client,
        session=outside.session,
        hear=voices.hear,
        revoke=outside.callbacks.revoke,
        group=group,
    )
    reports = HiveReports(
        clocks=clocks,
        catalog=outside.catalog,
        hives=hives,
        workers=matchmaker.workers,
        contacts=contacts,
        callback=Callback(outside.identity.url),
        narrator=narrator,
        group=group,
    )
    ways = Ways(outside, contacts, voices, narrator)
    lifecycle = HiveLifecycle(
        directory=ways.directory,
        hives=hives,
        contacts=contacts,
        ending=HiveEnding(clocks, contacts, narrator),
        wakers=ways.wakers(),
        narrator=narrator,
    )
    views = NodeViews(ways.directory, hives, matchmaker.workers)
    relay = Relay(outside.session, publish)
    refresh, address = contacts.refresh_workers, contacts.address
    worker = WorkerClient(outside.session, relay, matchmaker.workers, clocks, refresh, address)
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
        identity=outside.identity,
        catalog=outside.catalog,
        callbacks=outside.callbacks,
        hives=hives,
        matchmaker=matchmaker,
        tasks=tasks,
        dispatcher=dispatcher,
        holds=holds,
        errands=errands,
        nodes=ways.actions(lifecycle, views, matchmaker),
        node_views=views,
        pool=PoolProxy(contacts, outside.session, clocks.load_stall_s),
        contacts=contacts,
        reports=reports,
        lifecycle=lifecycle,
        narrator=narrator,
    )
