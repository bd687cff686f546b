"""The hive's link to its queen: heartbeats every 2 s and at every change, and the lease that her answers keep.

A hive that a queen started has a lease from its first moment; one that waits for a queen gets it when she adopts it.
When it runs out the hive goes, or, standalone, stops what she ordered and waits for the next.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import httpx2
from pydantic import ValidationError

from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.epochs import require_current_epoch
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.workers.lifecycle import Worker
from rbee_hive.workers.registry import WorkerRegistry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import HeartbeatAnswer, HiveHeartbeat
from rbee_shared.contracts.workers import WorkerReady
from rbee_shared.daemon import Daemon
from rbee_shared.errors import BadPeerError, HiveOwnedError, InvalidRequestError, QueenLostError, RbeeError
from rbee_shared.http_client import call
from rbee_shared.lease import Lease
from rbee_shared.narration import Narrator, correlation_id
from rbee_shared.version import __version__

_LOG = logging.getLogger("rbee.hive.queen")
_JITTER = 0.1
_MODELS_TOLD = 1000  # a heartbeat stays small however large the catalog
_READY_TRIES = 3
_READY_PAUSE_S = 0.2


@dataclass(frozen=True)
class Me:
    """How this hive introduces itself. `lease_from_start`: a queen started it."""

    name: str
    url: str
    token: str
    standalone: bool
    lease_from_start: bool
    announce_to: str | None


class QueenLink:
    """At most one queen at a time."""

    def __init__(
        self, daemon: Daemon, me: Me, client: httpx2.AsyncClient, catalog: ModelCatalog, devices: NodeDevices
    ) -> None:
        handshake = daemon.handshake
        self._daemon = daemon
        self._clocks: Clocks = daemon.clocks
        self._me = me
        self._client = client
        self._catalog = catalog
        self._devices = devices
        self._narrator = Narrator("hive", daemon.hub.publish, node=me.name)
        self._epoch = handshake.epoch if handshake else None
        self._seq = 0
        self._wake = anyio.Event()
        self._answering = True
        self.queen_url = _checked((handshake.queen_url if handshake else None) or me.announce_to)
        self.adopted = me.lease_from_start
        self.lease = Lease(self._clocks.hive_lease_s if me.lease_from_start else None)

    @property
    def epoch(self) -> int | None:
        """Of the queen that this hive belongs to; None without one."""
        return self._epoch

    def changed(self) -> None:
        """A worker's state has changed: tell her now."""
        self._wake.set()

    def adopt(self, queen_url: str, epoch: int) -> None:
        """Belong to that queen from now on.

        Raises:
            HiveOwnedError: it belongs to another one that still answers.
            StaleEpochError: a later start of that queen has taken it already.
            InvalidRequestError: that is no URL.
        """
        _checked(queen_url)
        if self.adopted and queen_url != self.queen_url:
            raise HiveOwnedError(
                f"the hive {self._me.name} belongs to the queen at {self.queen_url}",
                details={"queen_url": self.queen_url, "hive_url": self._me.url},
            )
        if queen_url == self.queen_url:
            require_current_epoch(epoch, self._epoch)
        if not self.adopted:
            self._narrator.tell("adopted", f"the queen at {queen_url} has adopted this hive", cute="🤝")
        self.queen_url, self._epoch = queen_url, epoch
        self._belong()
        self._wake.set()

    async def run(self, registry: WorkerRegistry) -> None:
        """Beat for ever; cancelled at the end."""
        while True:
            if self.queen_url is not None:
                await self._beat(self.queen_url, registry)
            await self._pause()

    async def watch_lease(self, give_up_workers: Callable[[str], Awaitable[None]]) -> None:
        """Act when the lease has run out: end the hive, or (standalone) the workers that this queen ordered."""
        while True:
            if not await self._expired():
                continue
            lost, seconds = self.queen_url or "?", self.lease.seconds or 0
            reason = f"the queen at {lost} has not answered for {seconds:.0f} s"
            if not self._me.standalone:
                self._narrator.tell("lease_expired", f"{reason}: going down", cute="⏳", level="warning")
                self._daemon.stopping.request(reason, abrupt=True)
                return
            self._narrator.tell(
                "lease_expired",
                f"{reason}: stopping what she ordered, waiting for the next",
                cute="⏳",
                level="warning",
            )
            self.queen_url, self._epoch, self.adopted = self._me.announce_to, None, False
            self.lease = Lease(None)
            await give_up_workers(lost)

    async def tell_ready(self, worker: Worker) -> None:
        """Tell the queen that a worker serves. The next heartbeat carries the same fact, so failing is no harm."""
        correlation_id.set(worker.order.correlation_id)
        record = worker.record()
        if self.queen_url is None or record.url is None:
            return
        message = WorkerReady(
            worker_id=record.id,
            url=record.url,
            model_ref=record.model_ref,
            backend=record.backend,
            device=record.device,
            restart_count=record.restart_count,
            narrated=self._daemon.hub.said,
            memory=record.memory,
        )
        for _ in range(_READY_TRIES):
            try:
                await self._post(f"{self.queen_url}/v1/orchestrator/worker-ready", message.model_dump(mode="json"))
            except RbeeError as error:
                _LOG.info("the queen did not take worker-ready: %s", error)
                await anyio.sleep(_READY_PAUSE_S)
            else:
                return

    async def _expired(self) -> bool:
        """False when the lease was replaced or has no end, after a while."""
        lease = self.lease
        with anyio.move_on_after(self._clocks.heartbeat_s):
            await lease.expired()
            return lease is self.lease
        return False

    async def _pause(self) -> None:
        """Until the next beat is due, or something has changed."""
        spread = secrets.SystemRandom().uniform(1 - _JITTER, 1 + _JITTER)
        with anyio.move_on_after(self._clocks.heartbeat_s * spread):
            await self._wake.wait()
        self._wake = anyio.Event()

    async def _beat(self, queen_url: str, registry: WorkerRegistry) -> None:
        try:
            answer = await self._exchange(queen_url, registry)
        except RbeeError as error:
            if self._answering:
                _LOG.warning("the queen at %s does not answer: %s (%s)", queen_url, error, error.code)
            self._answering = False
            return
        self._answering = True
        if queen_url != self.queen_url:
            return  # another one has adopted us meanwhile
        self._epoch = max(answer.epoch, self._epoch or 0)  # an answer may be older than her last start
        if answer.adopted or self.adopted:
            self._belong()

    async def _exchange(self, queen_url: str, registry: WorkerRegistry) -> HeartbeatAnswer:
        devices = await self._devices.loads(held_bytes(registry.records()))
        self._seq += 1
        beat = HiveHeartbeat(
            hive_id=self._daemon.instance,
            name=self._me.name,
            url=self._me.url,
            epoch=self._epoch,
            seq=self._seq,
            version=__version__,
            standalone=self._me.standalone,
            devices=devices,
            workers=registry.records(),
            models=self._catalog.downloaded[:_MODELS_TOLD],
            narrated=self._daemon.hub.said,
        )
        answer = await self._post(f"{queen_url}/v1/heartbeat", beat.model_dump(mode="json"))
        try:
            return HeartbeatAnswer.model_validate(answer)
        except ValidationError:
            raise BadPeerError(f"what {queen_url} answered to a heartbeat is no queen's answer") from None

    async def _post(self, url: str, body: dict[str, object]) -> dict[str, object]:
        return await call(self._client, "POST", url, token=self._me.token, body=body, unreachable=QueenLostError)

    def _belong(self) -> None:
        self.adopted = True
        clocks = self._clocks
        self.lease.renew(clocks.hive_lease_s if self._me.lease_from_start else clocks.adopted_hive_lease_s)


def _checked(url: str | None) -> str | None:
    try:
        valid = url is None or (httpx2.URL(url).scheme == "http" and bool(httpx2.URL(url).host))
    except httpx2.InvalidURL:
        valid = False
    if not valid:
        raise InvalidRequestError(f"{url!r} is no URL of a queen", hint="Write http://HOST:PORT.")
    return url


def became_ready(worker: Worker) -> bool:
    """Whether the change that is being told is that the worker has come to serve, for the first time or again."""
    return worker.has_become_ready
