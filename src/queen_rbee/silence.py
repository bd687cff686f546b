"""Nobody waits two seconds without being told what for."""

import time
from typing import Protocol

import anyio

from rbee_shared.event_log import EventLog
from rbee_shared.narration import Narrator
from rbee_shared.units import format_seconds

_CHECKS = 4


class Waiting(Protocol):
    """Something that is followed by people. `doing` completes the sentence "still …"."""

    log: EventLog
    doing: str
    doing_since_s: float

    @property
    def is_finished(self) -> bool: ...

    @property
    def narrator(self) -> Narrator: ...


async def break_silence(waiting: Waiting, silence_s: float) -> None:
    """Say what is being waited for whenever nothing was said for `silence_s`, until it is finished."""
    while not waiting.is_finished:
        await anyio.sleep(silence_s / _CHECKS)
        now = time.monotonic()
        if now - waiting.log.appended_at_s >= silence_s * (1 - 1 / _CHECKS):
            elapsed = format_seconds(now - waiting.doing_since_s)
            waiting.narrator.tell("still_waiting", f"still {waiting.doing} ({elapsed})", cute="⏳")
