"""One SSH connection to one machine: a block in which commands run and ports are forwarded.

Guarantees: the host key is one that is trusted; a machine that falls silent is noticed (`keepalive_s`); an exec has run
before the first forwarded byte, else the server leaves Nagle on (43 ms a token). Every failure is an error for people.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import asyncssh

from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.finished import Finished
from queen_rbee.ssh.target import Target
from rbee_shared.errors import RequestTimeoutError, SshForwardingForbiddenError, SshUnreachableError

_MAX_OUTPUT_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LOOPBACK = "127.0.0.1"
_CLOSE_S = 1.0

Process = asyncssh.SSHClientProcess[bytes]


@dataclass(frozen=True)
class Talk:
    """A command that goes on running: its stdin, and its stdout as it comes."""

    process: Process

    async def write(self, data: bytes) -> None:
        """Raises `SshUnreachableError` when it cannot be told any more."""
        with _as_ours("the connection broke off"):
            self.process.stdin.write(data)
            await self.process.stdin.drain()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Its stdout until it ends, or the connection does."""
        with contextlib.suppress(asyncssh.Error, OSError):
            while chunk := await self.process.stdout.read(_CHUNK_BYTES):
                yield chunk

    async def status(self) -> int | None:
        """Its exit status; None if a signal or the end of the connection ended it."""
        await self.process.wait_closed()
        return self.process.exit_status

    def hang_up(self) -> None:
        """End of file on its stdin, and no more of its output."""
        self.process.close()


class SshConnection:
    """Made by `connected`."""

    def __init__(self, target: Target, connection: asyncssh.SSHClientConnection) -> None:
        self._target = target
        self._connection = connection
        self._forwards: dict[int, asyncssh.SSHListener] = {}

    @property
    def is_open(self) -> bool:
        return not self._connection.is_closed()

    async def wait_closed(self) -> None:
        """Return when the connection has ended, whoever ended it."""
        await self._connection.wait_closed()

    async def run(
        self,
        command: str,
        stdin: bytes | AsyncIterable[bytes] = b"",
        *,
        timeout_s: float,
        hear: Callable[[bytes], None] | None = None,
    ) -> Finished:
        """Run `command` in the account's shell until it ends. `hear` gets its stdout as it comes.

        Raises:
            SshUnreachableError: the connection broke off.
            RequestTimeoutError: it did not end in time.
        """
        with anyio.move_on_after(timeout_s):
            async with self.talking(command) as talk:
                output, errors = bytearray(), bytearray()
                async with anyio.create_task_group() as feeding:
                    feeding.start_soon(_feed, talk, stdin)
                    async with anyio.create_task_group() as reading:
                        reading.start_soon(_collect, talk.process.stderr, errors, None)
                        reading.start_soon(_collect, talk.process.stdout, output, hear)
                    feeding.cancel_scope.cancel()  # who says nothing more reads nothing more
                status = await talk.status()
                if status is None:
                    self._require_open()
                return Finished(-1 if status is None else status, bytes(output), bytes(errors))
        raise RequestTimeoutError(f"a command on {self._target.node} did not end within {timeout_s:.0f} s")

    @asynccontextmanager
    async def talking(self, command: str) -> AsyncGenerator[Talk]:
        """Start `command` and talk to it for the length of the block. Leaving it does not end the command."""
        with _as_ours(f"cannot run a command on {self._target.node}"):
            process = await self._connection.create_process(
                command, encoding=None, request_pty=False, stdin=asyncssh.PIPE
            )
        talk = Talk(process)
        try:
            yield talk
        finally:
            talk.hang_up()

    async def forward(self, port: int, local_port: int = 0) -> int:
        """Make that machine's loopback `port` reachable here; the port on this machine's loopback.

        Raises:
            SshUnreachableError: the connection broke off.
        """
        self._require_open()
        with _as_ours(f"cannot forward a port to {self._target.node}"):
            listener = await self._listen(port, local_port)
        if not self.is_open:
            listener.close()  # a connection that has ended closes no listener that comes after
        self._require_open()
        if (before := self._forwards.pop(port, None)) is not None:
            before.close()
        self._forwards[port] = listener
        return listener.get_port()

    async def _listen(self, port: int, local_port: int) -> asyncssh.SSHListener:
        try:
            return await self._connection.forward_local_port(_LOOPBACK, local_port, _LOOPBACK, port)
        except OSError:
            if not local_port:
                raise
            return await self._connection.forward_local_port(_LOOPBACK, 0, _LOOPBACK, port)

    async def forward_back(self, path: Path, port: int = 0) -> int:
        """Let that machine reach the UNIX socket at `path` through a port of its loopback, which is returned.

        Raises:
            SshForwardingForbiddenError: its server forbids it.
            SshUnreachableError: the connection broke off.
        """
        try:
            with _as_ours(f"cannot forward a port back from {self._target.node}"):
                listener = await self._connection.forward_remote_port_to_path(_LOOPBACK, port, str(path))
        except SshForwardingForbiddenError:
            self._require_open()  # a connection that ends answers every open request with a refusal
            if not port:
                raise _forbidden(self._target.node) from None
            return await self.forward_back(path)  # the server may still hold that port for the connection before
        return listener.get_port()

    async def require_forwarding(self, port: int) -> None:
        """Try whether the server lets a byte through to its own `port`.

        Raises:
            SshForwardingForbiddenError: it does not.
            SshUnreachableError: the connection broke off.
        """
        try:
            _, writer = await self._connection.open_connection(_LOOPBACK, port)
        except asyncssh.ChannelOpenError as error:
            self._require_open()
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise _forbidden(self._target.node) from None
            return  # nobody listens there: the server did try
        writer.close()

    def _require_open(self) -> None:
        if not self.is_open:
            raise SshUnreachableError(f"the connection to {self._target.node} broke off")


@asynccontextmanager
async def connected(dialler: Dialler, target: Target) -> AsyncGenerator[SshConnection]:
    """A connection to `target` for the length of the block.

    Raises:
        SshUnreachableError, SshAuthFailedError, SshHostKeyUnknownError, SshHostKeyChangedError: why there is none.
        InvalidRequestError: `~/.ssh/config` cannot be used.
        RequestTimeoutError: it runs no command.
    """
    raw = await dialler.dial(target)
    connection = SshConnection(target, raw)
    try:
        await connection.run("true", timeout_s=dialler.login_s)  # before the first forwarded byte
        yield connection
    finally:
        with anyio.move_on_after(_CLOSE_S, shield=True):
            raw.close()
            await raw.wait_closed()
        raw.abort()


async def _feed(talk: Talk, stdin: bytes | AsyncIterable[bytes]) -> None:
    """All of `stdin`, then its end. Who ends before it has read all says why on its stdout."""
    with contextlib.suppress(SshUnreachableError):
        if isinstance(stdin, bytes):
            await talk.write(stdin)
        else:
            async for chunk in stdin:
                await talk.write(chunk)
        with contextlib.suppress(OSError):
            talk.process.stdin.write_eof()


async def _collect(reader: asyncssh.SSHReader[bytes], into: bytearray, hear: Callable[[bytes], None] | None) -> None:
    """What it says until its end; of the rest beyond a bound nothing is kept."""
    with contextlib.suppress(asyncssh.Error, OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            into += chunk[: max(0, _MAX_OUTPUT_BYTES - len(into))]
            if hear is not None:
                hear(chunk)


@contextlib.contextmanager
def _as_ours(what: str) -> Generator[None]:
    try:
        yield
    except asyncssh.ChannelListenError as error:
        raise SshForwardingForbiddenError(f"{what}: {error}") from None
    except (asyncssh.Error, OSError) as error:
        raise SshUnreachableError(f"{what}: {str(error) or type(error).__name__}") from None


def _forbidden(node: str) -> SshForwardingForbiddenError:
    return SshForwardingForbiddenError(
        f"the SSH server of {node} forbids port forwarding",
        hint=f"Set AllowTcpForwarding yes in its sshd_config, or go beside SSH: "
        f"rbee-keeper node add {node} --transport http.",
    )
