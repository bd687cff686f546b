"""The processor: its name, how many of it this hive may use, how busy it is.

Everything here reads files of the kernel and blocks: call it in a thread.
"""

import math
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil

from rbee_shared.machine_limits import logical_cores, quota_cores

_SYSCTL_S = 2.0


def utilisation_pct() -> float:
    """Of all processors, since the last call."""
    return psutil.cpu_percent(interval=None)


def cores() -> int:
    """Processors that this process may use, a container's quota rounded up."""
    quota = quota_cores()
    return logical_cores() if quota is None else min(logical_cores(), max(1, math.ceil(quota)))


@cache
def model_name() -> str:
    """What its maker calls it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in {"model name", "hardware"} and value.strip():
                return value.strip()
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SYSCTL_S, check=False)  # noqa: S603
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.machine() or "CPU"
