"""Main memory that this process may still use: the machine's, within a container's limit."""

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def free_main_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """What is free or can be made free at once. `cgroup`: where the process's own group is mounted."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        facts = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no cgroup v2, or the root of all groups
        return available
    if limit == "max":
        return available
    # file cache is given back before memory is refused: the model's own file has just gone through it
    held = used - int(facts.get("inactive_file", 0))
    return min(available, max(0, int(limit) - held))
