"""Main memory and processors that this process may use: the machine's, within the limits of its container.

Everything here reads files of the kernel and blocks for about a millisecond.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_LONGEST_PERIOD_US = 1_000_000_000
_PAGES_OF_A_PROCESSOR = re.compile(r"^\s+count:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """In bytes; cgroup limits applied. `free_bytes`: free, or made free at once as file cache is."""

    total_bytes: int
    free_bytes: int


def memory(groups: Sequence[Path] | None = None) -> Memory:
    """Main memory. `groups`: the cgroup directories that count, by default those that this process is in."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available + _just_freed_bytes()
    for limit, used in _memory_limits(groups_of() if groups is None else groups):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return Memory(total, free)


def logical_cores() -> int:
    """Processors that this process may run on; not its quota."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def quota_cores(groups: Sequence[Path] | None = None) -> float | None:
    """How many processors' time its container may take; None without a limit. `groups`: as for `memory`."""
    quotas = [_quota(directory) for directory in (groups_of() if groups is None else groups)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _just_freed_bytes() -> int:
    """Pages in the processors' own free lists. 0 where the kernel does not tell.

    Linux (since 6.7 up to an eighth of the memory) keeps what a process gave back there for many seconds, to hand it
    out again, and does not count it as available.
    """
    if sys.platform != "linux":
        return 0
    pages = _PAGES_OF_A_PROCESSOR.findall("\n".join(_lines(Path("/proc/zoneinfo"))))
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def _memory_limits(groups: Sequence[Path]) -> list[tuple[int, int]]:
    """(limit, used) of every group that has both; v2 first, then v1."""
    pairs = []
    for directory in groups:
        v2 = (directory / "memory.max", directory / "memory.current", "inactive_file")
        v1 = (directory / "memory.limit_in_bytes", directory / "memory.usage_in_bytes", "total_inactive_file")
        for limit_file, used_file, cache_name in (v2, v1):
            limit, used = _number(limit_file), _number(used_file)
            if limit is not None and used is not None:
                # the kernel gives file cache back before it refuses memory
                pairs.append((limit, max(0, used - _stat(directory / "memory.stat", cache_name))))
    return pairs


def _quota(directory: Path) -> float | None:
    words = " ".join(_lines(directory / "cpu.max")).split()
    if len(words) == 2 and words[0].isdigit():  # noqa: PLR2004 - "quota period"; v1 has a file for each
        return int(words[0]) / int(words[1])
    quota, period = _number(directory / "cpu.cfs_quota_us"), _number(directory / "cpu.cfs_period_us")
    return quota / period if quota and period and quota < _LONGEST_PERIOD_US else None


def groups_of(pid: int | None = None) -> list[Path]:
    """The directories of every control group that a process (this one without `pid`) is in, each up to its root."""
    directories = []
    for line in _lines(Path(f"/proc/{pid or 'self'}/cgroup")):
        _, controllers, name = line.split(":", 2)
        roots = [_CGROUP / kind for kind in controllers.split(",") if kind in {"memory", "cpu"}]
        for root in roots if controllers else [_CGROUP]:
            here = root / name.strip().lstrip("/")
            directories += [path for path in (here, *here.parents) if path.is_relative_to(root)]
    return directories


def _stat(path: Path, name: str) -> int:
    for line in _lines(path):
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
