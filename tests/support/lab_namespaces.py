"""Namespaces that nothing pins: each lives as long as a process in it, so that no crash can leave one behind.

The outermost is `enclosed`: mounts, network and process ids of its own, and a first process that ends when a pipe of
this process closes. Leaving the block closes it, and so does `kill -9`; the kernel then ends all that lives inside.
"""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_STARTING_S = 10.0
_ENDING_S = 20.0


@dataclass(frozen=True)
class Namespaces:
    """Those of process `pid`, the first one inside; the number is the one that is seen from here."""

    pid: int

    def argv(self, *kinds: str) -> list[str]:
        """What to put before a command so that it runs in these namespaces: `net`, `mount`, `pid`, `uts`, `ipc`."""
        return ["nsenter", f"--target={self.pid}", *(f"--{kind}" for kind in kinds), "--"]

    def tool(self, *command: str, text: str = "") -> str:
        """Run a program of the machine on this network; what it printed."""
        return tool(*self.argv("net"), *command, text=text)

    @property
    def root(self) -> Path:
        """The file system as it is seen inside. An absolute link in it leads to the machine's own files."""
        return Path(f"/proc/{self.pid}/root")

    def processes(self) -> list[psutil.Process]:
        """Every living process but the first; none when the first is gone."""
        try:
            space = os.stat(f"/proc/{self.pid}/ns/pid").st_ino  # noqa: PTH116 - a magic link, to be followed
        except FileNotFoundError:
            return []
        return [process for process in psutil.process_iter() if process.pid != self.pid and _lives_in(space, process)]

    def on_network(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread whose sockets, and those of threads it starts, belong to this network."""
        outcome: list[T] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                _join_network(self.pid)
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001 - raised again, in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return outcome[0]


def _lives_in(space: int, process: psutil.Process) -> bool:
    try:
        mine = os.stat(f"/proc/{process.pid}/ns/pid").st_ino  # noqa: PTH116 - same
        return mine == space and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        return False


def _join_network(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot join the network namespace")
    finally:
        os.close(descriptor)


@contextmanager
def enclosed() -> Generator[Namespaces]:
    """Mounts, network and process ids of their own until the block is left; then none of its processes lives.

    Raises:
        OSError: namespaces are not allowed here; the text is the system's.
    """
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "cat"]
    # a session of its own: Ctrl+C is for the tests, which then leave this block in order
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        first = first_child(process)
        if first is None:
            raise OSError(process.stderr.read().decode().strip())
        yield Namespaces(first.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(_ENDING_S)
        finally:
            process.kill()
            process.stderr.close()


def first_child(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The child that `unshare` or `nsenter` forked, waited for; None when the program ended without one."""
    deadline_s = time.monotonic() + _STARTING_S
    while process.poll() is None:
        children = psutil.Process(process.pid).children()
        if children:
            return children[0]
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{process.args!r} started nothing within {_STARTING_S:g} s")
        time.sleep(0.002)
    return None


def tool(*command: str, text: str = "") -> str:
    """Run a program of the machine to its end, `text` on its stdin; what it printed.

    Raises:
        AssertionError: it failed; the text is what it said.
    """
    done = subprocess.run(list(command), input=text, capture_output=True, text=True, timeout=_ENDING_S, check=False)
    assert done.returncode == 0, f"{_shown(command)}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)
