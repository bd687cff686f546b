"""What this package needs of a way to another machine: run one command there, and hear what it says."""

from collections.abc import AsyncIterable, Callable
from typing import Protocol

from queen_rbee.ssh.finished import Finished


class Shell(Protocol):
    """The login shell of an account."""

    async def run(
        self,
        command: str,
        stdin: bytes | AsyncIterable[bytes] = b"",
        *,
        timeout_s: float,
        hear: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """Run `command` until it ends. `hear` gets its stdout as it comes, while `stdin` is still being sent.

        Raises:
            SshUnreachableError: the connection broke off.
            RequestTimeoutError: it did not end in time.
        """
        ...
