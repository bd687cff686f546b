"""Puts the hive's parts together, each a block inside the one it needs, and runs what goes on in the background."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import psutil
from anyio.abc import TaskGroup

from rbee_hive.builds.builder import WorkerBuilder
from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.workers.idle import idle_too_long
from rbee_hive.own_address import OwnAddress
from rbee_hive.preload import preload
from rbee_hive.provisions import Provisions
from rbee_hive.queen_client import Me, QueenLink, became_ready
from rbee_hive.services import Services
from rbee_hive.settings import HiveSettings
from rbee_hive.tally import Tally
from rbee_hive.workbench import opened_builder, opened_library, provisioner_of
from rbee_hive.workers.defaults import WorkerDefaults
from rbee_hive.workers.lifecycle import Surroundings, Worker
from rbee_hive.workers.registry import WorkerRegistry
from rbee_hive.workers.room import Room
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.daemon import Daemon
from rbee_shared.errors import RbeeError
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narrator
from rbee_shared.parent import Parent

_LOG = logging.getLogger("rbee.hive")
_BUILDS_LATER_S = 10.0


@asynccontextmanager
async def assembled(
    daemon: Daemon, settings: HiveSettings, token: str, address: OwnAddress
) -> AsyncGenerator[Services]:
    """All services, running; on leaving the workers that still live are killed, downloads and builds cancelled."""
    clocks, home = daemon.clocks, daemon.home
    narrator, tally = Narrator("hive", daemon.hub.publish, node=settings.name), Tally()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        library = await enter(opened_library(home, settings, narrator))
        provisioner = provisioner_of(library, clocks, tally)
        builds = await enter(
            opened_builder(home, settings, clocks, narrator, in_use=lambda: builds_in_use(registry.live()))
        )
        devices = await enter(NodeDevices.open(settings.devices))
        client = await enter(http_client(connect_s=clocks.connect_s, call_s=clocks.control_call_s))
        provisions = await enter(Provisions.open(node=settings.name, grace_s=clocks.provision_grace_s))
        group = await enter(anyio.create_task_group())
        user = await anyio.to_thread.run_sync(lambda: psutil.Process().username())
        me = Me(settings.name, address, token, user, settings.standalone, _has_queen(daemon), settings.queen)
        link = QueenLink(daemon, me, client, library.catalog, devices)

        def changed(worker: Worker) -> None:
            link.changed()
            if became_ready(worker):
                group.start_soon(link.tell_ready, worker)
                group.start_soon(_note_load, room, worker.record())

        around = Surroundings(
            home,
            clocks,
            daemon.hub,
            client,
            address.url,
            settings.name,
            changed,
            device_free_bytes=partial(_free_bytes, devices),
        )
        registry = await enter(
            WorkerRegistry.open(around, kept=settings.ended_workers_kept, kept_s=settings.ended_workers_kept_s)
        )
        defaults = await anyio.to_thread.run_sync(WorkerDefaults.load, home.config)
        room = Room(library.catalog, devices, registry.records, defaults)
        services = Services(
            daemon=daemon,
            settings=settings,
            token=token,
            url=address.url,
            client=client,
            library=library,
            provisioner=provisioner,
            provisions=provisions,
            builds=builds,
            devices=devices,
            room=room,
            registry=registry,
            link=link,
            narrator=narrator,
            tally=tally,
        )

        _begin(group, services)
        yield services
        group.cancel_scope.cancel()


def _begin(group: TaskGroup, services: Services) -> None:
    """What goes on beside the server."""
    registry, link = services.registry, services.link

    async def give_up_workers(ordered_by: str | None) -> None:
        await registry.stop(worker for worker in registry.live() if worker.order.ordered_by == ordered_by)

    group.start_soon(link.run, registry)
    group.start_soon(link.watch_connection)
    group.start_soon(link.watch_lease, give_up_workers)
    group.start_soon(_stop_idle, services)
    group.start_soon(_look_at_builds, services.builds)
    group.start_soon(preload, services)


def _has_queen(daemon: Daemon) -> bool:
    """Whether a queen has started this hive, so that it has a lease before she says a word."""
    handshake = daemon.handshake
    return handshake is not None and (handshake.queen_url is not None or daemon.parent is Parent.SSH)


async def _look_at_builds(builds: WorkerBuilder) -> None:
    """The first look at the environment takes most of a second: later than the first answer, sooner than a question."""
    await anyio.sleep(_BUILDS_LATER_S)
    try:
        await builds.rows()
    except RbeeError as error:
        _LOG.warning("the worker builds could not be looked at: %s", error)


def builds_in_use(workers: Iterable[Worker]) -> frozenset[str]:
    """The directories that these workers have their engines from."""
    return frozenset(worker.order.engine_path for worker in workers if worker.order.engine_path is not None)


async def _free_bytes(devices: NodeDevices, device_id: str) -> int | None:
    """What that device has free; None if it is gone."""
    name = next((each for each in devices.present() if each.id == device_id), None)
    return None if name is None else await devices.free_bytes(name, {})


async def _note_load(room: Room, record: WorkerRecord) -> None:
    try:
        await room.note_load(record)
    except RbeeError as error:  # an estimate that is not corrected is still an estimate
        _LOG.warning("the load of %s could not be noted: %s", record.id, error)


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
