"""What a daemon says on its stdout: one JSON record a line, counted; who waits for a record waits here.

The pipe may be a child's own or the channel of a connection to another machine.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from rbee_shared.errors import RbeeError, error_from_body
from rbee_shared.narration import Narration

_LOG = logging.getLogger("rbee.child")
_SHOWN_BYTES = 200


@dataclass(frozen=True)
class Listening:
    """What a daemon says when it has bound its port."""

    url: str
    instance: str


class Voice:
    """One daemon's records. `name` is for people; `hear` is called with every narration."""

    def __init__(self, name: str, hear: Callable[[Narration], None]) -> None:
        self._name = name
        self._hear = hear
        self._changed = anyio.Event()
        self._ended = anyio.Event()
        self.heard = 0
        self.listening: Listening | None = None
        self.failure: RbeeError | None = None
        self.lines_lost = 0

    def take(self, line: bytes) -> None:
        """One line, without its newline."""
        if not line:
            return
        try:
            record = json.loads(line)
            kind, number = record["type"], int(record["n"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self.lines_lost += 1
            _LOG.warning("%s said something that is no record: %r", self._name, line[:_SHOWN_BYTES])
            return
        if kind == "narration":
            self._hear(Narration.from_dict(record))
        elif kind == "listening":
            self.listening = Listening(str(record.get("url")), str(record.get("instance")))
        elif kind == "failed":
            error = record.get("error")
            self.failure = error_from_body(error if isinstance(error, dict) else {})
        self.heard = max(self.heard, number)
        self._change()

    def end(self) -> None:
        """Nothing follows."""
        self._ended.set()
        self._change()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def wait_end(self) -> None:
        await self._ended.wait()

    async def wait_listening(self, timeout_s: float) -> bool:
        """Wait until it has bound its port, or ended; False when `timeout_s` ran out before."""
        with anyio.move_on_after(timeout_s):
            while self.listening is None and not self.has_ended:
                await self._changed.wait()
            return True
        return False

    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        """Wait until `lines` lines of its narration have arrived; give up quietly after `timeout_s`."""
        with anyio.move_on_after(timeout_s):
            while self.heard < lines and not self.has_ended:
                await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
