"""A hive that this queen has started through an SSH connection, which may end before the hive does.

Guarantees: it is heard from its first line, whatever the login shell prints around it; a connection that breaks leaves
it running, to be met again through its port; its end is known when it is said, or when the node is given up.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
from typing_extensions import override

from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.hive_process import HiveProcess
from queen_rbee.ssh.connection import Talk
from rbee_shared.child_io import LineSplitter
from rbee_shared.child_voice import Listening, Voice
from rbee_shared.errors import NodeUnreachableError, RbeeError, RequestTimeoutError
from rbee_shared.narration import Narration

# What stands before the nonce is a banner or the noise of an rc file.
_START = (
    'umask 077; home=$1; nonce=$2; shift 2; mkdir -p "$home/logs" || exit 1; echo; echo "$nonce"; '
    'RBEE_HOME=$home; export RBEE_HOME; exec "$@" 2>>"$home/logs/rbee-hive.err"'
)


@dataclass(frozen=True)
class HiveCommand:
    """Starts a hive on another machine. `home`: absolute, there; `program`: what starts `rbee-hive` there."""

    home: str
    program: Sequence[str]
    options: Sequence[str]
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    def line(self) -> str:
        """For any login shell."""
        argv = [*self.program, "daemon", "--parent", "ssh", *self.options]
        return command_line(["/bin/sh", "-c", _START, "sh", self.home, self.nonce, *argv])


class RemoteHive(HiveProcess):
    """`end_it`: ends it by a command of its node; whether it is gone then."""

    def __init__(
        self, node: str, home: str, hear: Callable[[Narration], None], end_it: Callable[[], Awaitable[bool]]
    ) -> None:
        self._node = node
        self._home = home
        self._voice = Voice(f"the hive at {node}", hear)
        self._end_it = end_it
        self._gone = anyio.Event()
        self._status: int | None = None

    async def listen(self, talk: Talk, nonce: str) -> None:
        """Hear it until it ends, or its connection does: then it may live on."""
        lines, has_begun = LineSplitter(), False
        async for chunk in talk.chunks():
            for line in lines.feed(chunk):
                if has_begun:
                    self._voice.take(line)
                has_begun = has_begun or line.strip() == nonce.encode()
        self._voice.end()
        if (status := await talk.status()) is not None:
            self.gone(status)

    @property
    def heard(self) -> int:
        """How many of its lines have been heard through its own connection."""
        return self._voice.heard

    def gone(self, status: int) -> None:
        """It is known to have ended. The first word counts."""
        if self._status is None:
            self._status = status
            self._gone.set()

    @property
    @override
    def listening(self) -> Listening | None:
        return self._voice.listening

    @property
    @override
    def returncode(self) -> int | None:
        return self._status

    @override
    async def wait_listening(self, timeout_s: float) -> Listening:
        if not await self._voice.wait_listening(timeout_s):
            raise RequestTimeoutError(
                f"the hive at {self._node} did not start within {timeout_s:.0f} s", hint=self._where_it_says_why()
            )
        if self.listening is None:
            raise self.death()
        return self.listening

    @override
    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        await self._voice.wait_heard(lines, timeout_s)

    @override
    async def wait_exit(self) -> int:
        await self._gone.wait()
        return self._status or 0

    @override
    def death(self) -> RbeeError:
        if self._voice.failure is not None:
            return self._voice.failure
        how = "its connection broke off" if self._status is None else f"exit {self._status}"
        return NodeUnreachableError(f"the hive at {self._node} did not come up ({how})", hint=self._where_it_says_why())

    @override
    async def terminate(self, grace_s: float) -> None:
        if self._status is None and await self._end_it():
            self.gone(-1)

    def _where_it_says_why(self) -> str:
        return f"Its last words are in {self._home}/logs/rbee-hive.err on {self._node}."
