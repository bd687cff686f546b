"""Who needs an ephemeral queen: every keeper holds her by an open connection, and she goes when nobody does.

Until the keeper that spawned her has opened its first hold, its end of her stdin counts as one.
"""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager

import anyio

from rbee_shared import sse
from rbee_shared.daemon import Stopping, end_of_file
from rbee_shared.event_log import EventLog
from rbee_shared.narration import Narration

_LOG = logging.getLogger("rbee.queen.holds")
_SPAWNER = "spawner"
_CHECKS_PER_GRACE = 20


class Holds:
    """The open holds. A standing queen has them too; there they decide nothing."""

    def __init__(self, *, ephemeral: bool) -> None:
        self.ephemeral = ephemeral
        self._held: set[str] = {_SPAWNER} if ephemeral else set()
        self._leaving = anyio.Event()
        self._last_words = EventLog(drop_anything=True)

    def __len__(self) -> int:
        return len(self._held)

    @contextmanager
    def held(self) -> Generator[str]:
        """Hold her for the length of the block; yields the hold's id."""
        hold_id = f"hold-{secrets.token_hex(8)}"
        self._held.add(hold_id)
        self._held.discard(_SPAWNER)
        try:
            yield hold_id
        finally:
            self._held.discard(hold_id)

    def release(self, hold_id: str) -> int:
        """End a hold before its connection closes; the number of holds that are left."""
        self._held.discard(hold_id)
        return len(self._held)

    def leave(self) -> None:
        """She goes now: holders are shown what the cluster says from here on."""
        self._leaving.set()

    def show(self, narration: Narration) -> None:
        """A line that belongs to no task: holders see it if she is leaving."""
        if self._leaving.is_set():
            self._last_words.append(sse.encode("narration", narration.to_dict()))

    def farewell(self) -> None:
        """Nothing follows: the holds' streams end."""
        self._last_words.close()

    async def stream(self, ping_s: float) -> AsyncGenerator[bytes]:
        """One hold: its id, silence while she lives, and what the cluster says while she goes."""
        with self.held() as hold_id:
            yield sse.encode("hold", {"hold_id": hold_id})
            async with aclosing(self._last_words.follow(ping_s=ping_s)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def watch_spawner(self) -> None:
        """Drop the spawner's own hold when it is gone."""
        await end_of_file(0)
        self._held.discard(_SPAWNER)

    async def watch(self, stopping: Stopping, is_working: Callable[[], bool], grace_s: float) -> None:
        """Stop her `grace_s` after the last hold and the last task are gone."""
        needed_at_s = anyio.current_time()
        while not stopping.is_requested:
            await anyio.sleep(grace_s / _CHECKS_PER_GRACE)
            now = anyio.current_time()
            if self._held or is_working():
                needed_at_s = now
            elif now - needed_at_s >= grace_s:
                stopping.request("nobody holds this ephemeral queen any more")
