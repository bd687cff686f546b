"""A lease: permission to live that somebody else must keep renewing.

The only guard that sees a parent which is stopped or cut off: its pipe stays open and its process exists.
"""

from collections.abc import Callable

import anyio

from rbee_shared.clocks import boot_time_s

_CHECKS_PER_LEASE = 20


class Lease:
    """Runs out `seconds` after the last renewal; without seconds it never does."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = boot_time_s) -> None:
        self._clock = clock
        self._seconds = seconds
        self._renewed_at = clock()

    @property
    def seconds(self) -> float | None:
        return self._seconds

    def renew(self, seconds: float | None = None) -> None:
        """Start the term anew; `seconds` changes its length from now on."""
        self._seconds = seconds if seconds is not None else self._seconds
        self._renewed_at = self._clock()

    def remaining_s(self) -> float:
        """Seconds left; infinite for a lease without a term."""
        if self._seconds is None:
            return float("inf")
        return self._renewed_at + self._seconds - self._clock()

    async def expired(self) -> None:
        """Return when it has run out."""
        while (left := self.remaining_s()) > 0:
            # short steps: the sleep's own clock stands still while the machine sleeps
            step = (self._seconds or 1.0) / _CHECKS_PER_LEASE
            await anyio.sleep(min(left, max(step, 0.01)))
