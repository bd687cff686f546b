"""Work that a hive does for whoever asks: fetching a model, making a worker build. Each piece has a stream of events.

Guarantees: one piece at a time for a key, shared by all who ask for it meanwhile; it ends when the last who waited for
it has left; exactly one last event, whatever happens.
"""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from rbee_shared import sse
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.provisions import ProvisionEnd
from rbee_shared.error_groups import first_error
from rbee_shared.errors import CancelledTaskError, InternalError, NotFoundError, RbeeError
from rbee_shared.event_log import EventLog
from rbee_shared.narration import Narration, Narrator

_LOG = logging.getLogger("rbee.hive.provisions")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ENDED_KEPT = 64
_LEAST_PAUSE_S = 0.02

Work = Callable[["Provision"], Awaitable[ProvisionEnd]]


class Provision:
    """One piece of work. Its narration goes into its own stream, and nowhere else but the log file."""

    def __init__(self, key: tuple[str, ...], node: str) -> None:
        self.id = f"provision-{secrets.token_hex(8)}"
        self.key = key
        self.log = EventLog()
        self.scope = anyio.CancelScope()
        self.end: ProvisionEnd | None = None
        self.error: RbeeError | None = None
        self.readers = 0
        self.left = anyio.Event()  # set once the last reader has left, for the first time
        self.left_at_s: float | None = None
        self.ended = anyio.Event()
        self.narrator = Narrator("model-provisioner", self._hear, node=node)

    @property
    def is_ended(self) -> bool:
        return self.end is not None or self.error is not None

    def progress(self, progress: ProgressEvent) -> None:
        """Show how far it is."""
        self.log.append(sse.encode("progress", progress.model_dump(exclude_none=True)), droppable=True)

    def attend(self) -> Callable[[], None]:
        """Somebody waits for it, until the returned function is called."""
        self.readers += 1
        self.left_at_s = None

        def leave() -> None:
            self.readers -= 1
            if self.readers == 0:
                self.left_at_s = time.monotonic()
                self.left.set()

        return leave

    async def wait(self) -> None:
        """Until it has ended. Whoever waits so keeps it going.

        Raises:
            RbeeError: why it failed.
        """
        leave = self.attend()
        try:
            await self.ended.wait()
        finally:
            leave()
        if self.error is not None:
            raise self.error

    def finish(self, end: ProvisionEnd) -> None:
        """The first end counts."""
        if not self.is_ended:
            self.end = end
            self._close(sse.encode("end", end.model_dump(mode="json", exclude_none=True)))

    def fail(self, error: RbeeError) -> None:
        """The first end counts."""
        if not self.is_ended:
            self.error = error
            _LOG.warning("%s failed: %s (%s)", " ".join(self.key), error.message, error.code)
            self._close(sse.encode("error", error.body()))

    def _close(self, last_frame: bytes) -> None:
        self.log.append(last_frame)
        self.log.close()
        self.ended.set()

    def _hear(self, narration: Narration) -> None:
        _LOG.log(_LEVELS[narration.level], "%s: %s", narration.actor, narration.human)
        self.log.append(sse.encode("narration", narration.to_dict()), droppable=True)


class Provisions:
    """Those under way, and those that ended a while ago. Made by `open`."""

    def __init__(self, group: TaskGroup, *, node: str, grace_s: float) -> None:
        self._group = group
        self._node = node
        self._grace_s = grace_s
        self._known: dict[str, Provision] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, *, node: str, grace_s: float) -> AsyncGenerator["Provisions"]:
        """None yet; what is under way on leaving is cancelled. `grace_s`: a reader may be gone for so long."""
        async with anyio.create_task_group() as group:
            provisions = cls(group, node=node, grace_s=grace_s)
            try:
                yield provisions
            finally:
                provisions.cancel_all()

    def start(self, work: Work, *key: str) -> Provision:
        """The piece of work that `key` names: the one under way, else `work` begins."""
        for known in self._known.values():
            if known.key == key and not known.is_ended and not known.scope.cancel_called:
                return known
        provision = self._new(key)
        self._group.start_soon(self._run, provision, work, name=provision.id)
        return provision

    def done(self, end: ProvisionEnd, *key: str) -> Provision:
        """A piece of work that was nothing to do."""
        provision = self._new(key)
        provision.finish(end)
        return provision

    def get(self, provision_id: str) -> Provision:
        """That piece of work.

        Raises:
            NotFoundError: it was never here, or ended a while ago.
        """
        try:
            return self._known[provision_id]
        except KeyError:
            raise NotFoundError(f"there is no provision {provision_id}", hint="Ask for the model anew.") from None

    def under_way(self) -> tuple[Provision, ...]:
        return tuple(provision for provision in self._known.values() if not provision.is_ended)

    def cancel_all(self) -> None:
        for provision in self.under_way():
            provision.scope.cancel()

    async def _run(self, provision: Provision, work: Work) -> None:
        with provision.scope:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._cancel_when_left, provision)
                    began_s = time.monotonic()
                    end = await work(provision)
                    provision.finish(end.model_copy(update={"elapsed_s": round(time.monotonic() - began_s, 3)}))
                    group.cancel_scope.cancel()
            except* RbeeError as errors:
                provision.fail(first_error(errors))
            except* Exception as errors:  # noqa: BLE001 - one piece of work must not end its hive; logged and told
                _LOG.exception("%s failed", " ".join(provision.key))
                provision.fail(InternalError(f"the hive failed: {first_error(errors)!r}"))
        if not provision.is_ended:
            provision.fail(CancelledTaskError("it was cancelled", hint="Ask again: what was fetched so far is kept."))

    async def _cancel_when_left(self, provision: Provision) -> None:
        """A connection may drop and come back: each leaving has a grace of its own."""
        await provision.left.wait()
        while True:
            gone_s = 0.0 if provision.left_at_s is None else time.monotonic() - provision.left_at_s
            if provision.left_at_s is not None and gone_s >= self._grace_s:
                _LOG.info("nobody waits for %s any more", " ".join(provision.key))
                provision.scope.cancel()
                return
            await anyio.sleep(max(_LEAST_PAUSE_S, self._grace_s - gone_s))

    def _new(self, key: tuple[str, ...]) -> Provision:
        provision = Provision(key, self._node)
        self._known[provision.id] = provision
        ended = [provision.id for provision in self._known.values() if provision.is_ended]
        for provision_id in ended[:-_ENDED_KEPT]:
            del self._known[provision_id]
        return provision
