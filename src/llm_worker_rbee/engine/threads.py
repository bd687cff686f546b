"""How many threads the engine computes with."""

import os
from pathlib import Path

import psutil

_SMALL_MODEL_PARAMETERS = 20_000_000
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def thread_count(n_params: int) -> int:
    """Physical cores that this process may use; one for a small model, where waiting for each other costs more."""
    if n_params < _SMALL_MODEL_PARAMETERS:
        return 1
    return usable_cores()


def usable_cores() -> int:
    """Physical cores, within the process's affinity and its cgroup's quota; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed, physical, _quota_cores(allowed)))


def _quota_cores(otherwise: int) -> int:
    try:
        quota, period = _CGROUP_LIMIT.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return otherwise
