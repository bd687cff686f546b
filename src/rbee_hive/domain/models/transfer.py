"""How a transfer goes on: its pace, its tries, its room on the disk. Observations come in, decisions go out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rbee_shared.errors import DiskFullError
from rbee_shared.units import format_bytes

MIB = 1024 * 1024
_RATE_WINDOW_S = 5.0


@dataclass(frozen=True)
class Source:
    """Where a file comes from and what it must be. `headers` go to the host of `url` only, never where it redirects.

    One of the hashes must be known: `sha256`, or `git_oid` (SHA-1 of git's blob) together with the size.
    `refused_hint`: what a person can do when the server wants to know who asks.
    """

    url: str
    sha256: str | None
    size_bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    git_oid: str | None = None
    refused_hint: str | None = None


@dataclass(frozen=True)
class Limits:
    """When a transfer is given up, begun anew, or refused."""

    connect_s: float = 10.0
    stall_s: float = 60.0
    slow_bytes_per_s: int = 4096
    slow_window_s: float = 60.0
    tries: int = 6
    first_pause_s: float = 0.1
    progress_bytes: int = MIB
    longest_retry_after_s: float = 120.0
    redirects: int = 10
    disk_margin_bytes: int = 64 * MIB
    tell_every_s: float = 0.25


Doing = Literal["waiting", "checking", "fetching"]


@dataclass(frozen=True)
class Transfer:
    """How far a transfer is. `note` says why nothing moves, where that is so; checking hashes what is there already."""

    doing: Doing
    done_bytes: int
    total_bytes: int | None
    per_s: float | None = None
    eta_s: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Pace:
    """What had arrived when: (seconds on a steady clock, bytes), oldest first; never empty."""

    marks: tuple[tuple[float, int], ...]
    moved_at_s: float

    @classmethod
    def begin(cls, now_s: float, done_bytes: int) -> "Pace":
        return cls(((now_s, done_bytes),), now_s)

    def noted(self, now_s: float, done_bytes: int, limits: Limits, *, excused: bool = False) -> "Pace":
        """One more observation; those that no rule needs are dropped. `excused`: it is we who hold it up."""
        horizon_s = now_s - max(limits.slow_window_s, _RATE_WINDOW_S)
        first = max((i for i, (at_s, _) in enumerate(self.marks) if at_s <= horizon_s), default=0)
        moved_at_s = now_s if excused or done_bytes != self.marks[-1][1] else self.moved_at_s
        return Pace((*self.marks[first:], (now_s, done_bytes)), moved_at_s)

    @property
    def per_s(self) -> float | None:
        """Bytes a second, lately; None before there is anything to tell it from."""
        now_s, done_bytes = self.marks[-1]
        since_s, before = next(mark for mark in self.marks if mark[0] >= now_s - _RATE_WINDOW_S)
        return (done_bytes - before) / (now_s - since_s) if now_s > since_s else None

    def eta_s(self, total_bytes: int | None) -> float | None:
        """Seconds until all is there, if it goes on like this."""
        rate = self.per_s
        return (total_bytes - self.marks[-1][1]) / rate if rate and total_bytes is not None else None

    def trouble(self, limits: Limits) -> str | None:
        """Why this connection should be given up for another: nothing comes, or next to nothing."""
        (first_s, first_bytes), (now_s, done_bytes) = self.marks[0], self.marks[-1]
        if now_s - self.moved_at_s >= limits.stall_s:
            return f"no byte came for {limits.stall_s:g} s"
        if now_s - first_s < limits.slow_window_s:
            return None
        rate = (done_bytes - first_bytes) / (now_s - first_s)
        if rate >= limits.slow_bytes_per_s:
            return None
        return f"only {format_bytes(int(rate))} a second came for {limits.slow_window_s:g} s"


@dataclass(frozen=True)
class Tries:
    """How many tries in a row brought nothing new, and how far the best one came."""

    failed: int = 0
    reached_bytes: int = 0

    def after_failure(self, done_bytes: int, limits: Limits) -> "Tries":
        """One more has failed. Bytes count once: a try that only fetched again what another had is no progress."""
        progress = done_bytes - self.reached_bytes >= limits.progress_bytes
        return Tries(0 if progress else self.failed + 1, max(done_bytes, self.reached_bytes))

    def pause_s(self, limits: Limits, asked_s: float | None = None) -> float | None:
        """Seconds to wait before the next try; None: give up. `asked_s`: the server's wish, honoured up to a limit."""
        if self.failed >= limits.tries:
            return None
        doubled_s = limits.first_pause_s * 2.0 ** max(self.failed - 1, 0)
        return max(doubled_s, min(asked_s or 0.0, limits.longest_retry_after_s))


def require_space(missing_bytes: int, free_bytes: int, limits: Limits, *, where: str) -> None:
    """Raise `DiskFullError` unless what is missing fits, with a margin for everybody else who writes there."""
    needed_bytes = missing_bytes + limits.disk_margin_bytes
    if missing_bytes > 0 and free_bytes < needed_bytes:
        raise DiskFullError(
            f"{where} has {format_bytes(free_bytes)} free; {format_bytes(missing_bytes)} are still to be fetched, and "
            f"{format_bytes(limits.disk_margin_bytes)} must stay free",
            details={"missing_bytes": missing_bytes, "free_bytes": free_bytes, "needed_bytes": needed_bytes},
        )
