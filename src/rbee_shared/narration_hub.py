"""Where a daemon's narration goes: its log file, its event stream, and its parent's pipe or its operator's terminal.

Every line passes `publish`, its own and those relayed from its children, and gets the daemon's next number there. A
parent that was told "I had said N lines by then" can wait until it has read N: that keeps lines in causal order
although they travel beside the HTTP calls.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from rbee_shared import sse
from rbee_shared.event_log import EventLog
from rbee_shared.line_writer import LineWriter
from rbee_shared.narration import Narration, render

_LOG = logging.getLogger("rbee.narration")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_EVENTS_LIMIT_BYTES = 1024 * 1024


class NarrationHub:
    """One per daemon. `has_parent`: speak JSON lines on stdout; otherwise plain lines on stderr."""

    def __init__(self, *, has_parent: bool) -> None:
        self._has_parent = has_parent
        self._fancy = not has_parent and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._writer = LineWriter(1 if has_parent else 2, undelivered=_log_undelivered)
        self._listeners: list[Callable[[Narration], None]] = []
        self.events = EventLog(limit_bytes=_EVENTS_LIMIT_BYTES, drop_anything=True)
        self.said = 0

    def publish(self, narration: Narration) -> None:
        """Say one line: logged, streamed, printed, handed to the listeners."""
        self.said += 1
        _LOG.log(_LEVELS[narration.level], "%s: %s", narration.actor, narration.human)
        self.events.append(sse.encode("narration", narration.to_dict()))
        if self._has_parent:
            self._line({"type": "narration", "n": self.said, **narration.to_dict()})
        else:
            self._writer.write(render(narration, fancy=self._fancy))
        for listener in self._listeners:
            listener(narration)

    def on_publish(self, listener: Callable[[Narration], None]) -> None:
        """Call `listener` with every line from now on."""
        self._listeners.append(listener)

    def announce(self, kind: str, **facts: Any) -> None:
        """Tell the parent a fact that is no narration: `listening` with the URL, `failed` with the error."""
        if self._has_parent:
            self._line({"type": kind, "n": self.said, **facts})

    def close(self) -> None:
        """Flush what was said."""
        self.events.close()
        self._writer.close()

    def _line(self, record: dict[str, Any]) -> None:
        self._writer.write(json.dumps(record, separators=(",", ":")))


def _log_undelivered(line: str) -> None:
    _LOG.debug("nobody read: %s", line)
