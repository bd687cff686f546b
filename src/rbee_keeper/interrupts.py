"""What cuts a command short (Ctrl+C, TERM, a closed terminal, the time-out, a closed stdout), and its exit status.

Only what stands inside `guard` is cut: the blocks around it (the queen's process, the hold on her) close afterwards in
their own order, bounded, still listening. A second Ctrl+C leaves at once: the queen notices by the connections that
close.
"""

import math
import os
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import anyio

from rbee_keeper.exit_codes import NOBODY_READS, TIMED_OUT, after_signal, exit_code
from rbee_keeper.output import nobody_reads
from rbee_shared.errors import DiskFullError, RbeeError

Guard = Callable[[], AbstractContextManager[None]]


class CutShortError(Exception):
    """The command does not go on; `Interrupts` knows why."""


class Interrupts:
    """Run `watch` beside the work, and wrap each wait of it in `guard`."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = math.inf if timeout_s is None else anyio.current_time() + timeout_s
        self._scopes: set[anyio.CancelScope] = set()
        self.exit_status: int | None = None
        self.signal: signal.Signals | None = None
        self.output_error: RbeeError | None = None

    def cut(self, exit_status: int) -> None:
        """End the work; the first reason counts."""
        if self.exit_status is None:
            self.exit_status = exit_status
        for scope in self._scopes:
            scope.cancel()

    def output_lost(self, error: OSError) -> None:
        """Nobody reads any more: end quietly, like other tools. A full disk is an error."""
        if nobody_reads(error):
            self.cut(NOBODY_READS)
            return
        self.output_error = DiskFullError(f"standard output cannot be written: {error.strerror}")
        self.cut(exit_code(self.output_error.code, answer_begun=False))

    @contextmanager
    def guard(self) -> Generator[None]:
        """A part of the work that may be cut.

        Raises:
            CutShortError: it was.
        """
        if self.exit_status is not None:
            raise CutShortError
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            if self.exit_status is None:
                self.exit_status = TIMED_OUT
            raise CutShortError

    async def watch(self) -> None:
        """Turn signals into `cut`; runs until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                if self.signal is not None and number == signal.SIGINT:
                    os._exit(after_signal(number))  # insisted: every descriptor closes, the queen sees it
                self.signal = self.signal or number
                self.cut(after_signal(number))
