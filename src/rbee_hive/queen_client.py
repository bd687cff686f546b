"""The hive's link to its queen: heartbeats every 2 s and at every change, and the lease that her answers keep.

A hive that a queen started has a lease from its first moment; one that waits for a queen gets it when she adopts it.
When it runs out the hive goes, or, standalone, stops what she ordered and waits for the next. Whose the hive is decides
`domain.ownership`.
"""

import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import anyio
import anyio.to_thread
import httpx2
from pydantic import ValidationError

from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.ownership import Ownership, Queen, answered, asks_still, first_owner, given_up, taken_by
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.own_address import OwnAddress
from rbee_hive.workers.lifecycle import Worker
from rbee_hive.workers.registry import WorkerRegistry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import HeartbeatAnswer, HiveHeartbeat
from rbee_shared.contracts.workers import WorkerReady
from rbee_shared.daemon import Daemon
from rbee_shared.errors import BadPeerError, InvalidRequestError, QueenLostError, RbeeError
from rbee_shared.handshake import Handshake
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
    """How this hive introduces itself. `lease_from_start`: a queen started it. `user`: the account that it runs as."""

    name: str
    address: OwnAddress
    token: str = field(repr=False)
    user: str
    standalone: bool
    lease_from_start: bool
    announce_to: str | None


class QueenLink:
    """At most one queen at a time."""

    def __init__(
        self, daemon: Daemon, me: Me, client: httpx2.AsyncClient, catalog: ModelCatalog, devices: NodeDevices
    ) -> None:
        self._daemon = daemon
        self._clocks: Clocks = daemon.clocks
        self._me = me
        self._client = client
        self._catalog = catalog
        self._devices = devices
        self._narrator = Narrator("hive", daemon.hub.publish, node=me.name)
        self._seq = 0
        self._wake = anyio.Event()
        self._beating: anyio.CancelScope | None = None
        self._answering = True
        self._announced_to = None if me.announce_to is None else Queen(_checked(me.announce_to))
        started_by = _queen_of(daemon.handshake)
        self.ownership = first_owner(started_by or self._announced_to, started_us=me.lease_from_start)
        self.lease = Lease(self._clocks.hive_lease_s if me.lease_from_start else None)

    @property
    def epoch(self) -> int | None:
        """Of the queen that this hive belongs to; None without one."""
        return self.ownership.epoch

    @property
    def adopted(self) -> bool:
        return self.ownership.adopted

    def changed(self) -> None:
        """A worker's state has changed: tell her now."""
        self._wake.set()

    def adopt(self, queen: Queen) -> None:
        """Belong to that queen from now on, or go on belonging to her under another address.

        Raises:
            HiveOwnedError: it belongs to another one, whose lease has not run out.
            StaleEpochError: a later start of that queen has taken it already.
            InvalidRequestError: that is no URL.
        """
        _checked(queen.url)
        me, before = self._me, self.ownership
        hive = {"name": me.name, "hive_url": me.address.url, "pid": os.getpid(), "user": me.user}
        self.ownership = taken_by(before, queen, hive)
        if not before.adopted:
            self._narrator.tell("adopted", f"the queen at {queen.url} has adopted this hive", cute="🤝")
        self._belong(before)
        if self._beating is not None:
            self._beating.cancel()  # it may hang on a dead connection for longer than the lease waits
        self._wake.set()

    def require_connection(self) -> None:
        """Refuse new work while nobody may be left to use it.

        Raises:
            QueenLostError: the connection through which a queen had started this hive is gone.
        """
        if self.ownership.cut_off:
            raise QueenLostError(
                f"the hive {self._me.name} has lost the connection to its queen, and takes no new work",
                hint="It does again when she has reconnected; if she does not, it goes down by itself: start it anew.",
                details={"lease_left_s": round(max(0.0, self.lease.remaining_s()), 1)},
            )

    async def run(self, registry: WorkerRegistry) -> None:
        """Beat for ever; cancelled at the end."""
        while True:
            with anyio.CancelScope() as self._beating:
                await self._beat(self.ownership, registry)
            self._beating = None
            await self._pause()

    async def watch_connection(self) -> None:
        """Take no new work from the moment the queen's connection is gone until she is back."""
        await self._daemon.hung_up.wait()
        if self.lease.seconds is None:
            return
        self.ownership = replace(self.ownership, cut_off=True)
        text = "the connection to the queen is gone: no new work, what runs goes on; she has {:.0f} s to come back"
        self._narrator.tell("cut_off", text.format(self.lease.remaining_s()), cute="✂️", level="warning")

    async def watch_lease(self, give_up_workers: Callable[[str | None], Awaitable[None]]) -> None:
        """Act when the lease has run out: end the hive, or (standalone) the workers that this queen ordered."""
        while True:
            if not await self._expired():
                continue
            lost, seconds = self.ownership, self.lease.seconds or 0
            reason = f"the queen at {lost.queen.url if lost.queen else '?'} has not answered for {seconds:.0f} s"
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
            self.ownership, self.lease = given_up(self._announced_to), Lease(None)
            await give_up_workers(lost.orders_as)

    async def tell_ready(self, worker: Worker) -> None:
        """Tell the queen that a worker serves. The next heartbeat carries the same fact, so failing is no harm."""
        correlation_id.set(worker.order.correlation_id)
        record = worker.record()
        if record.url is None:
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
            if (queen := self.ownership.queen) is None:
                return
            try:
                await self._post(queen, "/v1/orchestrator/worker-ready", message.model_dump(mode="json"))
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

    async def _beat(self, asked: Ownership, registry: WorkerRegistry) -> None:
        if asked.queen is None:
            return
        try:
            answer = await self._exchange(asked.queen, registry)
        except RbeeError as error:
            if self._answering:
                _LOG.warning("the queen at %s does not answer: %s (%s)", asked.queen.url, error, error.code)
            self._answering = False
            return
        self._answering = True
        before = self.ownership
        if not asks_still(before, asked):
            return  # another one has adopted us meanwhile, or she has moved
        self.ownership = answered(before, asked, epoch=answer.epoch, adopts=answer.adopted, queen_id=answer.queen_id)
        if answer.adopted:  # one who has given it up answers too: for her sake it need not live
            self._belong(before)

    async def _exchange(self, queen: Queen, registry: WorkerRegistry) -> HeartbeatAnswer:
        devices = await self._devices.loads(held_bytes(registry.records()))
        url = await self._url_for(queen)
        self._seq += 1
        beat = HiveHeartbeat(
            hive_id=self._daemon.instance,
            name=self._me.name,
            url=url,
            epoch=self.epoch,
            seq=self._seq,
            version=__version__,
            standalone=self._me.standalone,
            devices=devices,
            workers=registry.records(),
            models=self._catalog.downloaded[:_MODELS_TOLD],
            narrated=self._daemon.hub.said,
        )
        answer = await self._post(queen, "/v1/heartbeat", beat.model_dump(mode="json"))
        try:
            return HeartbeatAnswer.model_validate(answer)
        except ValidationError:
            raise BadPeerError(f"what {queen.url} answered to a heartbeat is no queen's answer") from None

    async def _url_for(self, queen: Queen) -> str:
        """Asked anew for every beat: a laptop changes its addresses."""
        address = self._me.address
        if not address.is_everywhere:
            return address.url
        return await anyio.to_thread.run_sync(address.url_for, queen.url, abandon_on_cancel=True)

    async def _post(self, queen: Queen, path: str, body: dict[str, object]) -> dict[str, object]:
        token = queen.token or self._me.token
        return await call(self._client, "POST", queen.url + path, token=token, body=body, unreachable=QueenLostError)

    def _belong(self, before: Ownership) -> None:
        """Her word that she is there."""
        clocks = self._clocks
        self.lease.renew(clocks.hive_lease_s if self._me.lease_from_start else clocks.adopted_hive_lease_s)
        if before.cut_off and not self.ownership.cut_off and self.ownership.queen is not None:
            self._narrator.tell("reconnected", f"the queen is back, at {self.ownership.queen.url}", cute="🤝")


def _queen_of(handshake: Handshake | None) -> Queen | None:
    """The queen that has started this hive and said where she is."""
    if handshake is None or handshake.queen_url is None:
        return None
    return Queen(_checked(handshake.queen_url), handshake.queen_id, handshake.epoch, handshake.queen_token)


def _checked(url: str) -> str:
    try:
        valid = httpx2.URL(url).scheme == "http" and bool(httpx2.URL(url).host)
    except httpx2.InvalidURL:
        valid = False
    if not valid:
        raise InvalidRequestError(f"{url!r} is no URL of a queen", hint="Write http://HOST:PORT.")
    return url


def became_ready(worker: Worker) -> bool:
    """Whether the change that is being told is that the worker has come to serve, for the first time or again."""
    return worker.has_become_ready
