"""The first minute with a hive that she has started or found: adopt it, wait for its first word, undo what failed."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_process import HiveProcess
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.reach import Reach
from rbee_shared.clocks import Clocks
from rbee_shared.errors import (
    HiveOwnedError,
    InvalidApiKeyError,
    NodeUnreachableError,
    RbeeError,
    RequestTimeoutError,
    VersionMismatchError,
)
from rbee_shared.http_client import call
from rbee_shared.version import __version__

_WATERMARK_S = 1.0

Keep = Callable[[HiveEntry], Awaitable[None]]


@dataclass(frozen=True)
class HiveArrival:
    """For every kind of node."""

    clocks: Clocks
    contacts: HiveContacts

    async def looked_at(self, url: str) -> dict[str, object] | None:
        """What the hive at `url` says of itself; None if there is none.

        Raises:
            VersionMismatchError: it is one of another version.
            RequestTimeoutError: something has that port, and does not answer.
        """
        try:
            health = await call(self.contacts.client, "GET", f"{url}/health", unreachable=NodeUnreachableError)
        except RequestTimeoutError:
            raise
        except RbeeError:
            return None
        if health.get("program") != "rbee-hive":
            return None
        if (version := health.get("version")) != __version__:
            raise VersionMismatchError(f"the hive at {url} is version {version}, this queen is {__version__}")
        return health

    async def adopted(
        self, node: str, own_url: str, reach: Reach, instance: str, *, keep: Keep | None = None
    ) -> HiveEntry:
        """Take over the hive that calls itself `own_url`, and wait for its first heartbeat.

        `keep` is called before it is told anything: whoever keeps the way to it notices every break from then on.

        Raises:
            HiveOwnedError, InvalidApiKeyError: it is another queen's, or another cluster's.
            NodeUnreachableError: it was told and never came.
        """
        epoch = await self.contacts.catalog.begin_epoch()
        url = await reach.url(own_url)
        entry = self.contacts.hives.put(HiveEntry(node, url, reach, epoch, hive_id=instance, own_url=own_url))
        async with self._undone_on_failure(entry):
            if keep is not None:
                await keep(entry)
            await self.adopt(entry)
            await self._first_heartbeat(entry)
        return entry

    async def started(self, node: str, process: HiveProcess, reach: Reach, epoch: int) -> HiveEntry:
        """Wait until a hive that was just started, and was told `epoch`, has bound its port and reported.

        Raises:
            RbeeError: what kept it from that; it is ended then.
        """
        entry = self.contacts.hives.put(HiveEntry(node, "", reach, epoch, process))
        async with self._undone_on_failure(entry):
            listening = await process.wait_listening(self.clocks.daemon_start_s)
            entry.hive_id, entry.own_url = listening.instance, listening.url
            entry.url = await reach.url(listening.url)
            await self._first_heartbeat(entry)
        await process.wait_heard(entry.narrated, _WATERMARK_S)
        return entry

    async def adopt(self, entry: HiveEntry) -> None:
        """Tell a hive whom it reports to, and where; again after its connection was lost."""
        try:
            await self.contacts.client_of(entry).adopt(entry.reach.callback, self.contacts.identity.queen_id)
        except InvalidApiKeyError:
            raise HiveOwnedError(
                f"the hive at {entry.node} ({entry.url}) is another cluster's: this queen's token does not open it",
                hint="Give it this cluster's token (`rbee-keeper token`), or stop it on that machine: "
                "~/.rbee/current/bin/rbee-hive stop",
            ) from None

    @asynccontextmanager
    async def _undone_on_failure(self, entry: HiveEntry) -> AsyncGenerator[None]:
        """What has not spoken yet, or is half started, is of no use to anybody: the next one begins anew."""
        try:
            yield
        except BaseException:
            self.contacts.hives.remove(entry)
            if entry.process is not None:
                with anyio.CancelScope(shield=True):
                    await entry.process.terminate(self.clocks.parent_lost_drain_s)
            raise

    async def _first_heartbeat(self, entry: HiveEntry) -> None:
        with anyio.move_on_after(self.clocks.daemon_start_s):
            async with anyio.create_task_group() as group:
                if entry.process is not None:
                    group.start_soon(_cancel_at_death, entry.process, group.cancel_scope)
                await entry.heard.wait()
                group.cancel_scope.cancel()
        if entry.heard.is_set():
            return
        if entry.process is not None and entry.process.returncode is not None:
            raise entry.process.death()
        raise NodeUnreachableError(f"the hive at {entry.node} started and sent no heartbeat")


async def _cancel_at_death(process: HiveProcess, scope: anyio.CancelScope) -> None:
    await process.wait_exit()
    scope.cancel()
