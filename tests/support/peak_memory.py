"""The most memory that this process has had."""

import re
import resource
import sys
from pathlib import Path


def most_memory_bytes() -> int:
    """Linux's own counter of this program: its `ru_maxrss` begins with what the parent held when it forked."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak, "Linux tells every process's peak"
    return int(peak[1]) * 1024
