"""What cuts a command short (Ctrl+C, TERM, a closed terminal, the time-out, a closed stdout), and its exit status.

Cutting short cancels one scope; clean-up behind it is shielded and bounded. A second Ctrl+C leaves at once: the
queen notices by the connections that close.
"""

import math
import os
import signal

import anyio

from rbee_keeper.exit_codes import TIMED_OUT, after_signal


class Interrupts:
    """Wrap the work in `scope`, run `watch` beside it."""

    def __init__(self, timeout_s: float | None) -> None:
        deadline = math.inf if timeout_s is None else anyio.current_time() + timeout_s
        self.scope = anyio.CancelScope(deadline=deadline)
        self.exit_status: int | None = None
        self.signal: signal.Signals | None = None

    def cut(self, exit_status: int) -> None:
        """End the work; the first reason counts."""
        if self.exit_status is None:
            self.exit_status = exit_status
        self.scope.cancel()

    def work_is_done(self) -> None:
        """The answer is complete: what follows is clean-up, which no time-out may turn into a failure."""
        self.scope.deadline = math.inf

    def status(self) -> int:
        """The exit status for what cut it short: without another reason it was the deadline."""
        return TIMED_OUT if self.exit_status is None else self.exit_status

    async def watch(self) -> None:
        """Turn signals into `cut`; runs until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if self.signal is not None and number == signal.SIGINT:
                    os._exit(after_signal(number))  # insisted: every descriptor closes, the queen sees it
                self.signal = self.signal or number
                self.cut(after_signal(number))
