"""The worker's word to its hive: ready once, alive every few seconds, at once when its state changes.

An answered heartbeat renews the lease. A hive that does not expect this worker ends it.
"""

import logging
import random
from collections.abc import Callable
from typing import Any

import anyio

from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerReady
from rbee_shared.daemon import Stopping
from rbee_shared.errors import NodeUnreachableError, RbeeError
from rbee_shared.lease import Lease

_LOG = logging.getLogger("rbee.hive")
_JITTER = 0.1
_NOT_EXPECTED = frozenset({401, 403, 404})


class HiveClient:
    """Reports until it is cancelled."""

    def __init__(self, hive_url: str, api_key: str, *, lease: Lease, clocks: Clocks, stopping: Stopping) -> None:
        self._hive_url = hive_url.rstrip("/")
        self._api_key = api_key
        self._lease = lease
        self._clocks = clocks
        self._stopping = stopping
        self._changed = anyio.Event()
        self._told_ready = False

    def state_changed(self) -> None:
        """Send a heartbeat now rather than later."""
        self._changed.set()

    async def report(self, beat: Callable[[], WorkerHeartbeat], ready: Callable[[], WorkerReady | None]) -> None:
        """Send heartbeats for ever; the ready callback as soon as there is one, until it is answered."""
        from rbee_shared.http_client import http_client  # noqa: PLC0415 - 100 ms that the load need not wait for

        answer_s = self._clocks.worker_lease_s / 2  # a lost call leaves time for another one
        async with http_client(connect_s=answer_s, call_s=answer_s) as client:
            while True:
                self._changed = anyio.Event()
                if not self._told_ready and (message := ready()) is not None:
                    self._told_ready = await self._send(client, "/v1/workers/ready", message)
                await self._send(client, "/v1/heartbeat/workers", beat())
                with anyio.move_on_after(self._clocks.heartbeat_s * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311
                    await self._changed.wait()

    async def _send(self, client: Any, path: str, message: WorkerHeartbeat | WorkerReady) -> bool:
        """True when the hive has taken it."""
        from rbee_shared.http_client import call  # noqa: PLC0415 - as above

        try:
            await call(
                client,
                "POST",
                self._hive_url + path,
                token=self._api_key,
                body=message.model_dump(mode="json"),
                unreachable=NodeUnreachableError,
            )
        except RbeeError as error:
            if error.http_status in _NOT_EXPECTED:
                self._stopping.request(f"the hive does not expect this worker: {error.message}")
            _LOG.warning("%s: %s (%s)", path, error.message, error.code)
            return False
        self._lease.renew()
        return True
