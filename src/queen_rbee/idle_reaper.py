"""Warm workers that nobody has used for long are stopped: the queen's order, carried out by their hive."""

import logging
import time

import anyio

from queen_rbee.domain.idle import idle_too_long
from queen_rbee.services import Services
from rbee_shared.errors import RbeeError
from rbee_shared.units import format_seconds

_LOG = logging.getLogger("rbee.queen.idle")
_CHECKS_PER_LIMIT = 10


async def reap_idle_workers(services: Services) -> None:
    """Look after every tenth of the limit, for ever; not at all when workers may be idle for ever."""
    limit_s = services.daemon.clocks.idle_worker_s
    if limit_s == 0:
        return
    workers = services.matchmaker.workers
    while True:
        await anyio.sleep(max(0.1, min(limit_s, 60.0) / _CHECKS_PER_LIMIT))
        chosen = idle_too_long(workers.facts(), now_s=time.time(), limit_s=limit_s)
        for worker_id in chosen:
            workers.retire(worker_id)  # before the first await: no task may be sent there meanwhile
        async with anyio.create_task_group() as group:
            for worker_id in chosen:
                group.start_soon(_stop, services, worker_id, limit_s)


async def _stop(services: Services, worker_id: str, limit_s: float) -> None:
    node = services.matchmaker.workers.node_of(worker_id)
    entry = services.hives.get(node) if node else None
    if entry is None:
        return
    services.narrator.tell("idle_stop", f"stopping {worker_id}: idle for {format_seconds(limit_s)}", cute="😴")
    try:
        await services.contacts.client_of(entry).stop_worker(worker_id)
    except RbeeError as error:
        services.matchmaker.workers.reinstate(worker_id)
        _LOG.warning("idle worker %s was not stopped: %s (%s)", worker_id, error, error.code)
