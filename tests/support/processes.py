"""What tests ask about processes: who belongs to this test, who is gone, who listens, what is still open.

A leak check that sees nothing proves nothing: look for the processes while they live, then again after.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

_POLL_S = 0.02


def alive(pid: int) -> bool:
    """Whether `pid` still runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(predicate: Callable[[], object], within_s: float, what: str) -> None:
    """Block until `predicate` holds. In an event loop call it through `anyio.to_thread.run_sync`.

    Raises:
        AssertionError: it did not within `within_s`; `what` says what was waited for.
    """
    deadline = time.monotonic() + within_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(_POLL_S)


def wait_gone(pids: Iterable[int], within_s: float) -> None:
    """Block until none of `pids` runs; the assertion names those that still do."""
    left = list(pids)

    def none_left() -> bool:
        left[:] = [pid for pid in left if alive(pid)]
        return not left

    try:
        wait_until(none_left, within_s, "every process gone")
    except AssertionError:
        raise AssertionError(f"still there after {within_s:g} s: {[described(pid) for pid in left]}") from None


def described(pid: int) -> str:
    """`123 python worker.py --port 0 (sleeping)`, for the message of an assertion."""
    try:
        process = psutil.Process(pid)
        return f"{pid} {' '.join(process.cmdline())} ({process.status()})"
    except psutil.NoSuchProcess:
        return f"{pid} (gone)"


def children_of(pid: int) -> list[psutil.Process]:
    """Every living descendant of `pid`."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if alive(process.pid)]


def processes_with_env(name: str, value: str) -> list[psutil.Process]:
    """Every living process that was started with `name=value` in its environment, but not this one.

    With the test's own RBEE_HOME that is everybody whom the test started, orphans included.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(name) == value and alive(process.pid):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def listening_ports(pids: Iterable[int]) -> set[int]:
    """The TCP ports that these processes listen on."""
    ports: set[int] = set()
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        ports |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN and each.laddr}
    return ports


def open_fds(pid: int | None = None) -> set[str]:
    """What each open descriptor of a process (of this one without `pid`) leads to, as `number target`. Linux only."""
    directory = Path(f"/proc/{pid or 'self'}/fd")
    found = set()
    for entry in directory.iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:  # the one that lists the directory
            continue
    return found
