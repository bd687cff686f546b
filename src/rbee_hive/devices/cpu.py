"""The processor and its memory. A container's limits count: what the machine has beyond them is not ours.

Everything here reads files of the kernel and blocks: call it in a thread.
"""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_SYSCTL_S = 2.0
_MICROS_PER_S = 1_000_000
_PAGES_OF_A_PROCESSOR = re.compile(r"^\s+count:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """In bytes; cgroup limits applied."""

    total_bytes: int
    free_bytes: int


def memory() -> Memory:
    """Memory that this process may use, and how much of it is free."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available + _just_freed_bytes()
    for limit, used in _cgroup_limits():
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return Memory(total, free)


def utilisation_pct() -> float:
    """Of all processors, since the last call."""
    return psutil.cpu_percent(interval=None)


def cores() -> int:
    """Processors that this process may use, a container's quota rounded up."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cpu_quota()
    return min(usable, max(1, -(-int(quota * 100) // 100))) if quota else usable


@cache
def model_name() -> str:
    """What its maker calls it."""
    if sys.platform == "linux":
        for line in _lines(Path("/proc/cpuinfo")):
            name, _, value = line.partition(":")
            if name.strip().lower() in {"model name", "hardware"} and value.strip():
                return value.strip()
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SYSCTL_S, check=False)  # noqa: S603
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.machine() or "CPU"


def _just_freed_bytes() -> int:
    """Pages in the processors' own free lists. 0 where the kernel does not tell.

    Linux (since 6.7 up to an eighth of the memory) keeps what a process gave back there for many seconds, to hand it
    out again, and does not count it as available.
    """
    if sys.platform != "linux":
        return 0
    pages = _PAGES_OF_A_PROCESSOR.findall("\n".join(_lines(Path("/proc/zoneinfo"))))
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


def _cgroup_limits() -> list[tuple[int, int]]:
    """(limit, used) of every group this process is in, up to the root; v2 first, then v1."""
    pairs = []
    for directory in _cgroup_directories():
        v2 = (directory / "memory.max", directory / "memory.current", "inactive_file")
        v1 = (directory / "memory.limit_in_bytes", directory / "memory.usage_in_bytes", "total_inactive_file")
        for limit_file, used_file, cache_name in (v2, v1):
            limit, used = _number(limit_file), _number(used_file)
            if limit is not None and used is not None:
                # the kernel gives file cache back before it refuses memory
                pairs.append((limit, max(0, used - _stat(directory / "memory.stat", cache_name))))
    return pairs


def _cgroup_directories() -> list[Path]:
    directories = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, name = line.split(":", 2)
        root = _CGROUP / "memory" if "memory" in controllers.split(",") else _CGROUP
        if controllers and root == _CGROUP:
            continue
        here = root / name.strip().lstrip("/")
        directories += [path for path in (here, *here.parents) if path.is_relative_to(root)]
    return directories


def _cpu_quota() -> float | None:
    """In processors; None without a limit."""
    for directory in _cgroup_directories():
        words = " ".join(_lines(directory / "cpu.max")).split()
        if len(words) == 2 and words[0].isdigit():  # noqa: PLR2004 - "quota period"
            return int(words[0]) / int(words[1])
    quota = _number(_CGROUP / "cpu" / "cpu.cfs_quota_us")
    period = _number(_CGROUP / "cpu" / "cpu.cfs_period_us")
    return quota / period if quota and period and 0 < quota < _MICROS_PER_S * 1000 else None


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
