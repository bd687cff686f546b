"""For whoever runs this node: everything about it at a glance, its numbers, its log files."""

import shutil
from collections.abc import Iterable
from typing import Annotated, Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import PlainTextResponse, Response

from rbee_hive import log_files
from rbee_hive.dependencies import ServicesDep, require_epoch, require_token
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.routes.devices import devices as devices_now
from rbee_hive.self_test import self_test
from rbee_hive.services import Services
from rbee_shared.contracts.hives import HiveStatus, SelfTest
from rbee_shared.sse_response import EventStream
from rbee_shared.version import __version__

router = APIRouter(dependencies=[Depends(require_token)])


@router.get("/v1/status")
async def status(services: ServicesDep) -> HiveStatus:
    """The node, its devices, workers, models, builds, and what is under way."""
    owner = services.link.ownership
    return HiveStatus(
        name=services.settings.name,
        version=__version__,
        instance=services.daemon.instance,
        url=services.url,
        queen_url=owner.queen.url if owner.queen else None,
        queen_id=owner.queen.queen_id if owner.queen else None,
        adopted=owner.adopted,
        cut_off=owner.cut_off,
        standalone=services.settings.standalone,
        started_at=services.started_at_unix,
        devices=await devices_now(services),
        workers=tuple(record.model_copy(update={"api_key": None}) for record in services.registry.records()),
        models=await services.catalog.count(),
        downloaded=len(services.catalog.downloaded),
        builds=await services.builds.rows(),
        provisions=len(services.provisions.under_way()),
        models_dir=str(services.library.directory),
        disk_free_bytes=await _disk_free_bytes(services),
    )


@router.get("/metrics", response_class=Response)
async def metrics(services: ServicesDep, accept: Annotated[str, Header()] = "") -> Response:
    """Prometheus's text format, or OpenMetrics for a scraper that asks for it."""
    from rbee_hive.metrics import DeviceMemory, Now, render  # noqa: PLC0415 - 40 ms that a hive without a scraper saves

    records = services.registry.records()
    found = await services.devices.facts(held_bytes(records))
    devices = [DeviceMemory("cpu", found.cpu.ram_bytes, found.cpu.free_bytes)]
    devices += [DeviceMemory(gpu.id, gpu.vram_bytes, gpu.free_bytes) for gpu in found.gpus]
    now = Now(
        workers=records,
        crashes=services.registry.crashes(),
        restarts=services.registry.restarts(),
        devices=tuple(devices),
        models=await services.catalog.count(),
        models_downloaded=len(services.catalog.downloaded),
        provisions=len(services.provisions.under_way()),
        disk_free_bytes=await _disk_free_bytes(services),
    )
    body, content_type = render(services.tally, now, accept=accept)
    return Response(body, media_type=content_type)


@router.get("/v1/logs", response_class=PlainTextResponse)
async def logs(
    services: ServicesDep,
    file: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=255, include_in_schema=False)] = None,
    lines: Annotated[int, Query(ge=1, le=10_000)] = 200,
    follow: Annotated[bool, Query()] = False,  # noqa: FBT002 - a parameter of the request
) -> Response:
    """The last lines of a log file of this home, secrets redacted; without a name, which files there are.

    `follow`: as an event stream, and every line that comes, until this hive goes. `name` is another name of `file`.
    """
    directory, clocks, chosen = services.daemon.home.logs, services.daemon.clocks, file or name
    if chosen is None:
        return _text(await anyio.to_thread.run_sync(log_files.names, directory))
    if not follow:
        return _text(await anyio.to_thread.run_sync(log_files.tail, directory, chosen, lines))
    reader = await anyio.to_thread.run_sync(log_files.LogReader.open, directory, chosen)
    last = await anyio.to_thread.run_sync(reader.last, lines)
    over = services.daemon.hub.events
    frames = log_files.followed(reader, last, is_over=lambda: over.closed, ping_s=clocks.sse_ping_s)
    return EventStream(frames, slow_client_s=clocks.slow_client_s, ended=reader.close)


@router.post("/v1/selftest", dependencies=[Depends(require_epoch)])
async def selftest(services: ServicesDep, level: Literal["quick"] = "quick") -> SelfTest:
    """One decoded token on every device, a file written where the models are. One at a time: 409 `NOT_READY`."""
    return await self_test(services)


def _text(lines: Iterable[str]) -> PlainTextResponse:
    return PlainTextResponse("".join(f"{line}\n" for line in lines))


async def _disk_free_bytes(services: Services) -> int:
    return (await anyio.to_thread.run_sync(shutil.disk_usage, services.library.directory)).free
