"""`pool worker …`: the workers of nodes. A start that is cut short leaves no worker."""

from collections.abc import Sequence
from contextlib import suppress

import anyio

from rbee_keeper import exit_codes
from rbee_keeper.pool.hive import Hive
from rbee_keeper.pool.hosts import Answer, sentence
from rbee_keeper.pool.models import Ask
from rbee_shared import hive_views
from rbee_shared.contracts.hives import FarewellList, WorkerFarewell
from rbee_shared.contracts.provisions import WorkerProvisionRequest
from rbee_shared.contracts.workers import SpawnAnswer, SpawnRequest, WorkerList
from rbee_shared.errors import RbeeError, error_from_body
from rbee_shared.hive_advice import told_from_afar

_STOP_S = 10.0


async def listed(hive: Hive) -> Answer:
    """The workers of the node, their keys left out."""
    records = tuple(record.model_copy(update={"api_key": None}) for record in await hive.workers())
    document = WorkerList(workers=records).model_dump(mode="json", exclude={"workers": {"__all__": {"api_key"}}})
    return Answer(document, lambda width: hive_views.workers(records, width))


def spawn(order: SpawnRequest, build: WorkerProvisionRequest) -> Ask:
    """Have the build that it needs, start a worker, and wait until it serves."""

    async def ask(hive: Hive) -> Answer:
        await hive.provide_build(build)
        worker = await _start(hive, order)
        return sentence(worker, f"{worker.worker_id} is {worker.state} on {hive.node}")

    return ask


async def _start(hive: Hive, order: SpawnRequest) -> SpawnAnswer:
    """The worker, once it serves. Cancelling this stops it, also before its id is known: by the `request_id`."""
    assert order.request_id, "or it could not be found again"
    worker_id: str | None = None
    try:
        worker_id = (await hive.spawn(order)).worker_id
        return await hive.spawn(order, until_ready=True)
    except anyio.get_cancelled_exc_class():
        hive.voice.screen.narrator.tell("interrupt", f"stopping {worker_id or 'the worker'}", cute="🛑")
        with anyio.move_on_after(_STOP_S, shield=True), suppress(RbeeError):
            await hive.stop(worker_id or (await hive.spawn(order)).worker_id)
        raise


def stop(worker_id: str) -> Ask:
    """Stop a worker; done when it is gone."""

    async def ask(hive: Hive) -> Answer:
        done = await hive.stop(worker_id)
        return _gone((done,), hive, done.model_dump(mode="json"))

    return ask


async def stop_all(hive: Hive) -> Answer:
    """Stop every worker of the node; done when they are gone."""
    done = await hive.stop_all()
    return _gone(done, hive, FarewellList(workers=done).model_dump(mode="json"))


def _gone(done: Sequence[WorkerFarewell], hive: Hive, document: dict[str, object]) -> Answer:
    """What became of them; memory that did not come back is an error all the same."""
    bodies = [worker.error for worker in done if worker.error is not None]
    errors = [told_from_afar(error_from_body(body), hive.node) for body in bodies]
    for error in errors:
        hive.voice.complain(error)
    statuses = [exit_codes.exit_code(error.code, answer_begun=False) for error in errors]
    return Answer(document, lambda _: hive_views.farewells(done), max(statuses, default=exit_codes.DONE))
