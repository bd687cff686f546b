"""A process that is known by pid and start time, signalled and waited for so that no other can be meant.

Where the system has pidfds (Linux) the process is held by one, and its number cannot be reused behind our back;
elsewhere its start time is compared right before each signal.
"""

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.to_thread
import psutil

from rbee_shared.errors import ForbiddenError
from rbee_shared.process_identity import is_running

_POLL_S = 0.05


@dataclass(frozen=True)
class KnownProcess:
    """Made by `known`."""

    pid: int
    create_time: float
    pidfd: int | None

    async def send(self, number: signal.Signals) -> None:
        """Signal it; nothing happens if it has ended.

        Raises:
            ForbiddenError: it is another user's.
        """
        try:
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                await anyio.to_thread.run_sync(self._compare_and_send, number)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return
        except (PermissionError, psutil.AccessDenied):
            raise ForbiddenError(
                f"process {self.pid} belongs to another user", hint="Run the command as that user, or as root."
            ) from None

    async def gone_within(self, seconds: float) -> bool:
        """Whether it ends in time; one that is dead and not yet reaped has ended."""
        with anyio.move_on_after(seconds):
            if self.pidfd is not None:
                await anyio.wait_readable(self.pidfd)
            while await anyio.to_thread.run_sync(is_running, self.pid, self.create_time):  # noqa: ASYNC110 - no child of ours
                await anyio.sleep(_POLL_S)
            return True
        return False

    def _compare_and_send(self, number: signal.Signals) -> None:
        process = psutil.Process(self.pid)
        if is_running(self.pid, self.create_time):
            process.send_signal(number)  # compares once more that the number is still of the process of a line above


@asynccontextmanager
async def known(pid: int, create_time: float) -> AsyncGenerator[KnownProcess | None]:
    """That very process for the length of the block; None if it does not run."""
    pidfd = _opened(pid)
    try:
        # looked at only now: what the descriptor holds is what had the number then, and still has it
        lives = await anyio.to_thread.run_sync(is_running, pid, create_time)
        yield KnownProcess(pid, create_time, pidfd) if lives else None
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _opened(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has ended, or the kernel is older than pidfds
        return None
