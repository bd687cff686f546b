"""How many threads the engine computes with."""

import psutil

from rbee_shared.machine_limits import logical_cores, quota_cores

_SMALL_MODEL_PARAMETERS = 20_000_000


def thread_count(n_params: int) -> int:
    """Physical cores that this process may use; one for a small model, where waiting for each other costs more."""
    if n_params < _SMALL_MODEL_PARAMETERS:
        return 1
    return usable_cores()


def usable_cores() -> int:
    """Physical cores, within the process's affinity and its cgroup's quota, rounded down; at least one."""
    cores = min(logical_cores(), psutil.cpu_count(logical=False) or logical_cores())
    quota = quota_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))
