"""Ends hives: when they are told to go, when their queen goes, and when they hang.

Guarantees: what is known of a hive is forgotten whatever came of ending it; who cannot be reached is named, with the
time after which it is gone by its own lease; another queen's hive is left alone.
"""

import logging
import math
import socket
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import NodeState
from rbee_shared.errors import HiveOwnedError, NodeUnreachableError, RbeeError, StaleEpochError
from rbee_shared.http_client import call
from rbee_shared.narration import Narrator

_LOG = logging.getLogger("rbee.queen.hives")
_GONE_POLL_S = 0.1
_REFUSED_S = 2.0
_OF_HER_DRAIN = 0.9  # the rest is for telling what came of it


@dataclass(frozen=True)
class HiveEnding:
    """For every kind of node."""

    clocks: Clocks
    contacts: HiveContacts
    narrator: Narrator

    async def stop_all(self, *, cascade: bool) -> None:
        """Stop every hive in parallel: woken ones always, adopted ones with `cascade`, standalone ones never."""
        within_s = self.clocks.queen_drain_s * _OF_HER_DRAIN
        async with anyio.create_task_group() as group:
            for entry in self.contacts.hives.all():
                if entry.process is not None or (cascade and not entry.standalone):
                    group.start_soon(partial(self.stop, entry, within_s=within_s))

    async def stop(self, entry: HiveEntry, *, within_s: float = math.inf) -> bool:
        """Stop one: by HTTP, then by its process. Whether it is known to be gone; it is not known here any more.

        The caller holds the node's lock, unless all of them are stopped.
        """
        entry.state, entry.to_stop = NodeState.DRAINING, True
        try:
            with anyio.move_on_after(within_s):
                entry.is_gone = await self._stopped_by_word(entry) or await self._stopped_by_force(entry)
        except (StaleEpochError, HiveOwnedError) as error:
            self.narrator.tell("hive_kept", f"{error.message}; it stays", level="warning")
            return True
        finally:
            self.contacts.lose(entry, "it was stopped" if entry.is_gone else "it could not be reached")
        if entry.is_gone:
            await self.contacts.note(partial(self.contacts.catalog.note_serving, entry.node, serving=False))
            self.narrator.tell("hive_stopped", f"the hive at {entry.node} has stopped", cute="🌙")
        else:
            self.narrator.tell("hive_left", self.left_behind(entry), level="warning")
        return entry.is_gone

    def left_behind(self, entry: HiveEntry) -> str:
        """What becomes of a hive that could not be stopped, in words."""
        if entry.standalone:
            return f"{entry.node} cannot be reached; its hive goes on: an operator started it to stand alone"
        bound_s = self._lease_s(entry) + self.clocks.hive_drain_s
        return f"{entry.node} cannot be reached; its hive will stop itself by its lease in at most {bound_s:.0f} s"

    async def _stopped_by_word(self, entry: HiveEntry) -> bool:
        try:
            await self.contacts.client_of(entry).shutdown()
        except (StaleEpochError, HiveOwnedError):
            raise  # it is no longer hers
        except RbeeError as error:
            _LOG.info("the hive at %s does not take the order to stop: %s", entry.node, error)
            return (
                entry.process is None and entry.end is None and await anyio.to_thread.run_sync(_is_refused, entry.url)
            )
        with anyio.move_on_after(self.clocks.hive_drain_s * 1.5):
            await self._until_gone(entry)
            return True
        return False

    async def _stopped_by_force(self, entry: HiveEntry) -> bool:
        """TERM, then KILL; over SSH where it is on another machine."""
        if entry.process is not None:
            self._say_force(entry)
            await entry.process.terminate(self.clocks.parent_lost_drain_s * 2)
            return entry.process.returncode is not None
        if entry.end is not None:
            self._say_force(entry)
            return await entry.end()
        return False

    def _say_force(self, entry: HiveEntry) -> None:
        self.narrator.tell("kill_hive", f"ending the hive at {entry.node} by force", level="warning")

    async def _until_gone(self, entry: HiveEntry) -> None:
        """By its process, if that is heard; else by its port, as long as the way there is open."""
        if entry.process is not None and entry.feed is None:
            await entry.process.wait_exit()
            return
        while True:
            try:
                await call(self.contacts.client, "GET", f"{entry.url}/health", unreachable=NodeUnreachableError)
            except NodeUnreachableError:
                if not entry.reach.is_coming_back:
                    return
            except RbeeError as error:
                _LOG.info("the hive at %s is still there: %s", entry.node, error)
            await anyio.sleep(_GONE_POLL_S)

    async def end_the_hanging(self) -> None:
        """For ever: end hives that are silent past their lease, though the way to them is open: they hang."""
        while True:
            await anyio.sleep(self.clocks.heartbeat_s)
            async with anyio.create_task_group() as group:
                for entry in filter(self._hangs, self.contacts.hives.all()):
                    if not self.contacts.lock(entry.node).locked():  # else somebody sees to it already
                        group.start_soon(self._end_hanging, entry)

    async def _end_hanging(self, entry: HiveEntry) -> None:
        async with self.contacts.lock(entry.node):
            if self.contacts.hives.get(entry.node) is entry and self._hangs(entry):
                try:
                    await self.put_away(entry)
                except Exception:  # noqa: BLE001 - what was not foreseen about one hive ends no queen
                    _LOG.exception("the hive at %s hangs, and cannot be ended", entry.node)

    def _hangs(self, entry: HiveEntry) -> bool:
        is_within_reach = entry.process is not None or entry.end is not None
        return (
            is_within_reach
            and entry.state is NodeState.OFFLINE
            and not entry.reach.is_coming_back
            and self.contacts.hives.age_s(entry) > self._lease_s(entry)
        )

    def _lease_s(self, entry: HiveEntry) -> float:
        return self.clocks.hive_lease_s if entry.process is not None else self.clocks.adopted_hive_lease_s

    async def put_away(self, entry: HiveEntry) -> None:
        """One that has gone silent holds its home's lock, and perhaps its workers' memory."""
        await self._stopped_by_force(entry)
        self.contacts.lose(entry, "it has gone silent")


def _is_refused(url: str) -> bool:
    """Whether that machine answers that nobody listens there. Blocking."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_REFUSED_S):
            return False
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
