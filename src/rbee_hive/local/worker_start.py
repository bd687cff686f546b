"""Starts a worker for a person: what the hive says of it is shown, and how far its loading is, until it serves."""

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import anyio

from rbee_hive.local.provision_stream import frames
from rbee_hive.local.screen import Screen
from rbee_shared.contracts.workers import SpawnAnswer, SpawnRequest
from rbee_shared.errors import RbeeError
from rbee_shared.narration import correlation_id

if TYPE_CHECKING:
    from rbee_hive.local.hive_api import HiveApi

_URL_POLL_S = 0.1
_STOP_S = 10.0


async def start_worker(hive: "HiveApi", order: SpawnRequest, screen: Screen) -> SpawnAnswer:
    """The worker, once it serves. Cancelling this stops it, also before its id is known: by the `request_id`.

    Raises:
        RbeeError: the hive refuses, or it never will serve.
    """
    assert order.request_id, "or it could not be found again"
    worker_id: str | None = None
    failure: RbeeError | None = None
    ready: SpawnAnswer | None = None
    try:
        worker_id = (await hive.spawn(order)).worker_id
        async with anyio.create_task_group() as group:
            group.start_soon(_show_narration, hive, screen)
            group.start_soon(_show_load, hive, worker_id, screen)
            try:
                ready = await hive.ready(order)
            except RbeeError as error:
                failure = error  # raised behind the group, which would wrap it
            group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        screen.narrator.tell("interrupt", f"stopping {worker_id or 'the worker'}", cute="🛑")
        with anyio.move_on_after(_STOP_S, shield=True), suppress(RbeeError):
            # asking again tells which worker it became; one that only begins now, because the order never came
            # through, ends here too
            await hive.stop(worker_id or (await hive.spawn(order)).worker_id)
        raise
    if failure is not None:
        raise failure
    assert ready is not None
    return ready


async def _show_narration(hive: "HiveApi", screen: Screen) -> None:
    """What the hive says for this command's sake, known by its correlation id. Only for show, so it may fail."""
    with suppress(RbeeError):
        async with hive.events("/v1/events") as chunks, aclosing(frames(chunks)) as found:
            async for frame in found:
                data = frame.json()
                if frame.event == "narration" and data.get("correlation_id") == correlation_id.get():
                    screen.hear("narration", data)


async def _show_load(hive: "HiveApi", worker_id: str, screen: Screen) -> None:
    """How far the loading is, as the worker itself tells it. Only for show, so it may fail."""
    with suppress(RbeeError):
        while (url := await _url_of(hive, worker_id)) is None:  # noqa: ASYNC110 - the hive is another process
            await anyio.sleep(_URL_POLL_S)
        async with hive.events_at(f"{url}/v1/loading/progress", {}) as chunks, aclosing(frames(chunks)) as found:
            async for frame in found:
                if frame.event == "progress":
                    screen.hear("progress", frame.json())


async def _url_of(hive: "HiveApi", worker_id: str) -> str | None:
    return next((record.url for record in await hive.workers() if record.id == worker_id), None)
