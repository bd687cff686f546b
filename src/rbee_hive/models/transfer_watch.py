"""Looks at a transfer several times a second: tells how far it is, and ends a connection that brings nothing."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio

from rbee_hive.domain.models.transfer import Doing, Limits, Pace, Transfer

Tell = Callable[[Transfer], None]


class Watch:
    """The owner keeps `done_bytes` and `total_bytes` true; `run` does the rest.

    `held_up`: the bytes come faster than the disk takes them, so that silence is not the connection's fault.
    `trouble`: why the last connection was ended from here; None if it was not.
    """

    def __init__(self, tell: Tell, limits: Limits, total_bytes: int | None) -> None:
        self._tell = tell
        self._limits = limits
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.held_up = False
        self.trouble: str | None = None
        self._doing: Doing = "fetching"
        self._note = ""
        self._pace = Pace.begin(anyio.current_time(), 0)
        self._connection: anyio.CancelScope | None = None

    async def run(self) -> None:
        """For ever; cancelled at the end."""
        while True:
            self.look()
            await anyio.sleep(self._limits.tell_every_s)

    def look(self) -> None:
        """Once, now."""
        self._pace = self._pace.noted(
            anyio.current_time(), self.done_bytes, self._limits, excused=self.held_up or self._connection is None
        )
        left_s = self._pace.eta_s(self.total_bytes)
        self._tell(Transfer(self._doing, self.done_bytes, self.total_bytes, self._pace.per_s, left_s, self._note))
        if self._connection is not None and (trouble := self._pace.trouble(self._limits)):
            self.trouble = trouble
            self._connection.cancel()

    def now(self, doing: Doing, done_bytes: int, note: str = "") -> None:
        """Another phase begins: its pace is a new one, and it is told at once, however short it will be."""
        is_new = (doing, note) != (self._doing, self._note)
        if doing != self._doing or done_bytes < self.done_bytes:
            self._pace = Pace.begin(anyio.current_time(), done_bytes)
        self._doing, self.done_bytes, self._note = doing, done_bytes, note
        if is_new:
            self.look()

    @contextmanager
    def connection(self) -> Generator[None]:
        """The block waits for a server; it is cut short when the server brings nothing, and `trouble` says so."""
        self.trouble = None
        with anyio.CancelScope() as scope:
            self._connection = scope
            self._pace = Pace.begin(anyio.current_time(), self.done_bytes)
            try:
                yield
            finally:
                self._connection = None
