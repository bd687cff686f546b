"""The hive's life: one per home and machine, bound first, serving until asked to stop, its workers gone before it.

Guarantees: it says its URL before anything slow is imported; on the way out it takes no new work, stops all workers at
once, and is gone within `hive_drain_s`, or at once when its parent is gone.
"""

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from rbee_hive.domain.workers.port_choice import hive_ports
from rbee_hive.lock_holder import sign, unsign
from rbee_hive.own_address import OwnAddress
from rbee_hive.settings import HiveSettings
from rbee_shared.auth import read_or_make_token, read_token
from rbee_shared.daemon import Daemon
from rbee_shared.errors import HiveOwnedError, PortInUseError
from rbee_shared.file_lock import try_lock
from rbee_shared.narration import Narrator, correlation_id
from rbee_shared.run_file import read_run_file, run_file
from rbee_shared.server import bind, url_of
from rbee_shared.settings import load_settings

if TYPE_CHECKING:
    from rbee_hive.services import Services

PROGRAM = "rbee-hive"
_LOCK_POLL_S = 0.05
_OWNED_AFTER_S = 1.0


@dataclass(frozen=True)
class Start:
    """The command line."""

    flags: dict[str, Any]
    config: Path | None


async def live(daemon: Daemon, start: Start) -> None:
    """Serve until stopping is requested, then leave nothing behind."""
    config = start.config or daemon.home.config
    settings = await anyio.to_thread.run_sync(lambda: load_settings(HiveSettings, flags=start.flags, config=config))
    narrator = Narrator("hive", daemon.hub.publish, node=settings.name)
    correlation = daemon.handshake.correlation_id if daemon.handshake else None
    async with _only_hive(daemon):
        token = await anyio.to_thread.run_sync(_token, daemon, settings)
        narrator.tell("start", f"starting pool manager on port {settings.port}", cute="🌅", correlation=correlation)
        listener = _bind(daemon, settings)
        daemon.hub.announce("listening", url=url_of(listener), instance=daemon.instance)
        await _serve(daemon, settings, token, listener)


async def _serve(daemon: Daemon, settings: HiveSettings, token: str, listener: socket.socket) -> None:
    # imported only now: whoever waits for the port waits no longer for these
    from rbee_hive.app import create_app  # noqa: PLC0415
    from rbee_hive.assembly import assembled  # noqa: PLC0415
    from rbee_shared.server import serving  # noqa: PLC0415

    address, clocks = OwnAddress.of(listener), daemon.clocks
    async with assembled(daemon, settings, token, address) as services:
        drain_s = clocks.parent_lost_drain_s
        async with serving(create_app(services), listener, header_s=clocks.header_s, drain_s=drain_s):
            with run_file(daemon.home.run_file(PROGRAM), url=address.url, instance=daemon.instance):
                correlation = daemon.handshake.correlation_id if daemon.handshake else None
                port = listener.getsockname()[1]
                services.narrator.tell(
                    "listening", f"HTTP server ready on port {port}", cute="🚀", correlation=correlation
                )
                await daemon.stopping.requested.wait()
            await _drain(services)


async def _drain(services: "Services") -> None:
    """Stop the workers side by side, then end the event streams."""
    stopping = services.daemon.stopping
    correlation_id.set(stopping.correlation_id)
    count = len(services.registry.live())
    if not stopping.abrupt:
        text = f"stopping {count} worker{'' if count == 1 else 's'}" if count else "shutting down, no workers to stop"
        services.narrator.tell("shutdown", text, cute="👋")
    services.provisions.cancel_all()
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on, stopping.hurry, group.cancel_scope)
        with anyio.move_on_after(services.daemon.clocks.hive_drain_s):
            await services.registry.stop(services.registry.live())
        group.cancel_scope.cancel()
    services.registry.kill_all()
    services.daemon.hub.events.close()


async def _cancel_on(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def _only_hive(daemon: Daemon) -> AsyncGenerator[None]:
    """Hold this home's lock for life, signed. A hive on its way out has withdrawn its run file: it is waited for.

    Raises:
        HiveOwnedError: another hive serves this home on this machine.
    """
    lock, home = daemon.home.lock_file(PROGRAM), daemon.home
    began_s = seen_alive_s = anyio.current_time()
    while (descriptor := try_lock(lock)) is None:
        now_s = anyio.current_time()
        holder = await anyio.to_thread.run_sync(read_run_file, home.run_file(PROGRAM))
        seen_alive_s = seen_alive_s if holder else now_s
        if now_s - seen_alive_s > _OWNED_AFTER_S or now_s - began_s > daemon.clocks.hive_drain_s:
            where = f"at {holder.url} (pid {holder.pid})" if holder else "and is just starting or stopping"
            raise HiveOwnedError(
                f"a hive for {home.root} runs already {where}",
                details={"url": holder.url, "pid": holder.pid} if holder else None,
            )
        await anyio.sleep(_LOCK_POLL_S)
    try:
        await anyio.to_thread.run_sync(sign, descriptor)
        yield
    finally:
        unsign(descriptor)
        os.close(descriptor)


def _bind(daemon: Daemon, settings: HiveSettings) -> socket.socket:
    *first, last = hive_ports(settings.port, has_parent=daemon.parent is not None)
    for port in first:
        try:
            return bind(settings.bind, port)
        except PortInUseError:
            continue
    return bind(settings.bind, last)


def _token(daemon: Daemon, settings: HiveSettings) -> str:
    if daemon.handshake is not None and daemon.handshake.token:
        return daemon.handshake.token
    return read_token(settings.token_file) if settings.token_file else read_or_make_token(daemon.home.token)
