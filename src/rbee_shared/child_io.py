"""The raw parts of a child process: starting it, and taking bounded lines out of its pipe."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from rbee_shared.errors import NoCapacityError

_MAX_LINE_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_LEFT_IN_PIPE_BYTES = 1024 * 1024
_PRIVATE_FILE = 0o600


def spawn(argv: Sequence[str], env: Mapping[str, str], stderr: Path) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, with pipes for stdin and stdout and `stderr` as its error log.

    Raises:
        NoCapacityError: it cannot be started.
    """
    try:
        with os.fdopen(os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE_FILE), "ab") as log:
            return subprocess.Popen(  # noqa: S603 - argv is built by our own code, never by a shell
                list(argv),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl+C in the terminal is the keeper's alone
                bufsize=0,
            )
    except OSError as error:
        raise NoCapacityError(
            f"cannot start {argv[0]}: {error}",
            hint="Look for a full disk, or for too many processes or open files of this user.",
        ) from None


def is_zombie(pid: int) -> bool:
    """Whether our child `pid` is dead and not yet reaped; False also where that cannot be asked without reaping."""
    if sys.platform != "linux":
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


async def read_some(descriptor: int) -> bytes:
    """The next bytes of a non-blocking descriptor; empty at its end."""
    while True:
        await anyio.wait_readable(descriptor)
        try:
            return os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            continue


def drained(descriptor: int) -> bytes:
    """What a dead child left in the pipe. Bounded: a grandchild that left its group may go on writing for ever."""
    data = b""
    try:
        while len(data) < _LEFT_IN_PIPE_BYTES and (chunk := os.read(descriptor, _READ_BYTES)):
            data += chunk
    except BlockingIOError:
        return data  # somebody else still holds the pipe open
    return data


class LineSplitter:
    """Lines out of chunks. A line beyond the bound is cut there, and what follows the next newline is in step again."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()[:_MAX_LINE_BYTES]
        return [line[:_MAX_LINE_BYTES] for line in lines]
