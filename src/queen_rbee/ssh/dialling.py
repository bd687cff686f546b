"""Opens authenticated SSH connections, and says exactly why it cannot.

Guarantees: only keys and the agent are offered, nobody is asked for anything; a host key that nobody has confirmed
ends the attempt before a single secret is shown.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import asyncssh
from typing_extensions import override

from queen_rbee.ssh.host_keys import HostKey, HostKeys, Match, TrustedKeys
from queen_rbee.ssh.target import Target
from rbee_shared.errors import (
    InvalidRequestError,
    RbeeError,
    SshAuthFailedError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
    SshUnreachableError,
)

_LOG = logging.getLogger("rbee.queen.ssh")
_PAUSE_S = 0.2
_KEEPALIVES_MISSED = 3
_SSH_PORT = 22


@dataclass(frozen=True)
class Shown:
    """The host key of a machine, where it was found, and the fingerprints that are trusted for it."""

    key: HostKey
    host: str
    port: int
    known: tuple[str, ...]


@dataclass(frozen=True)
class Dialler:
    """`config`: OpenSSH's file. Times in seconds; `tries` counts attempts at a machine that does not answer."""

    host_keys: HostKeys
    config: Path
    connect_s: float
    login_s: float
    keepalive_s: float
    tries: int = 3

    async def dial(self, target: Target) -> asyncssh.SSHClientConnection:
        """A connection that has logged in.

        Raises:
            SshUnreachableError, SshAuthFailedError, SshHostKeyUnknownError, SshHostKeyChangedError: why not.
            InvalidRequestError: `~/.ssh/config` or the key named for the node cannot be used.
        """
        for left in range(self.tries - 1, -1, -1):
            attempt = _Attempt(self, target)
            try:
                return await attempt.make()
            except SshUnreachableError as error:
                if attempt.known and (change := await self._change(attempt, target)) is not None:
                    raise change from None
                if not left:
                    raise error from None
            await anyio.sleep(_PAUSE_S)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _change(self, attempt: "_Attempt", target: Target) -> RbeeError | None:
        """Asked for the kinds of key that are known of it, a server that has none of them just hangs up."""
        try:
            shown = await self.presented_key(target)
        except RbeeError:
            return None
        attempt.presented = shown.key
        return None if shown.key.fingerprint in attempt.known else attempt.untrusted()

    async def presented_key(self, target: Target) -> Shown:
        """The host key that `target` shows now, trusted or not.

        Raises:
            SshUnreachableError: nobody answers there.
        """
        attempt = _Attempt(self, target, trust_nothing=True)
        try:
            connection = await attempt.make()
        except (SshHostKeyUnknownError, SshHostKeyChangedError):
            assert attempt.presented is not None
            return Shown(attempt.presented, attempt.host, attempt.port, attempt.known)
        connection.abort()  # a certificate of an authority that is trusted: there is nothing to confirm
        shown = connection.get_server_host_key()
        assert shown is not None
        return Shown(HostKey.of(shown), attempt.host, attempt.port, attempt.known)


class _Attempt(asyncssh.SSHClient):
    """One attempt to connect, and what it has learnt by the time it fails."""

    def __init__(self, dialler: Dialler, target: Target, *, trust_nothing: bool = False) -> None:
        self._dialler = dialler
        self._target = target
        self._trust_nothing = trust_nothing
        self.known: tuple[str, ...] = ()
        self._limit = anyio.CancelScope()
        self.presented: HostKey | None = None
        self.host, self.port = target.host, target.port or _SSH_PORT

    async def make(self) -> asyncssh.SSHClientConnection:
        try:
            options = await anyio.to_thread.run_sync(self._options)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from None
        try:
            return await self._connect(options)
        except asyncssh.HostKeyNotVerifiable:
            raise self.untrusted() from None
        except asyncssh.PermissionDenied:
            raise self._refused(options) from None
        except (TimeoutError, OSError, asyncssh.Error) as error:
            raise SshUnreachableError(f"{self._where()}: {_why(error)}") from None

    async def _connect(self, options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHClientConnection:
        """A time to be reached in, and from then on one to log in; through a jump host only both together."""
        is_direct = not options.tunnel and not options.proxy_command
        limit_s = self._dialler.connect_s + (0 if is_direct else self._dialler.login_s)
        with anyio.fail_after(limit_s) as self._limit:
            return await asyncssh.connect(self._target.host, config=None, options=options)

    @override
    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._limit.deadline = anyio.current_time() + self._dialler.login_s

    def _options(self) -> asyncssh.SSHClientConnectionOptions:
        """Blocking: reads the configuration, the keys and the known hosts."""
        dialler, target = self._dialler, self._target
        trusted = dialler.host_keys.read()
        told: dict[str, Any] = {"username": target.user} if target.user else {}
        told |= {"port": target.port} if target.port else {}
        told |= {"client_keys": [str(Path(target.key).expanduser())]} if target.key else {}
        return asyncssh.SSHClientConnectionOptions(
            client_factory=lambda: self,
            host=target.host,
            config=[str(dialler.config)] if dialler.config.is_file() else None,
            known_hosts=partial(self._match, trusted),
            keepalive_interval=dialler.keepalive_s,
            keepalive_count_max=_KEEPALIVES_MISSED,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_auth=False,
            gss_kex=False,
            command=None,
            request_pty=False,
            **told,
        )

    def _match(self, trusted: TrustedKeys, host: str, address: str, port: int | None) -> Match:
        """Called by asyncssh when it knows whom it talks to."""
        self.host, self.port = host, port or _SSH_PORT
        keys = trusted.match(host, address, port)
        self.known = tuple(dict.fromkeys(HostKey.of(key).fingerprint for key in keys[0]))
        return ([], [], []) if self._trust_nothing else keys

    @override
    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called only for a key that is not trusted: it stays so, but it can be shown."""
        self.presented = HostKey.of(key)
        return False

    def untrusted(self) -> RbeeError:
        """Why its host key does not do."""
        if (key := self.presented) is None:
            return SshHostKeyChangedError(f"{self._where()} shows a host key that is revoked", hint=self._hint("trust"))
        facts = {"host": self.host, "port": self.port, "key_type": key.key_type, "fingerprint": key.fingerprint}
        if not self.known:
            text = f"{self._where()} shows a host key that nobody has confirmed yet: {key.fingerprint} ({key.key_type})"
            return SshHostKeyUnknownError(text, hint=self._hint("add"), details=facts)
        known = ", ".join(self.known)
        text = f"{self._where()} shows the host key {key.fingerprint}, and not the one that was confirmed: {known}"
        details = {**facts, "known_fingerprint": known}
        return SshHostKeyChangedError(text, hint=self._hint("trust"), details=details)

    def _hint(self, command: str) -> str:
        name = self._target.node
        if command == "add":
            return (
                f"Compare it with the machine's own (ssh-keyscan on it), then confirm it: rbee-keeper node add {name}"
            )
        return (
            "Was the machine reinstalled? If not, somebody may be in between. "
            f"If the new key is right, accept it: rbee-keeper node trust {name}"
        )

    def _refused(self, options: asyncssh.SSHClientConnectionOptions) -> SshAuthFailedError:
        tried = [f"{_comment(pair)} ({pair.algorithm.decode(errors='replace')})" for pair in options.client_keys or ()]
        agent = "the agent's keys" if options.agent_path else "no agent"
        listed = f"{', '.join(tried)} and {agent}" if tried else agent
        text = f"{self._where()} lets {options.username} not in; tried: {listed}"
        hint = f"Put your public key there: ssh-copy-id {options.username}@{self.host}; or name another one: --key FILE"
        return SshAuthFailedError(text, hint=hint, details={"user": options.username, "keys_tried": tried})

    def _unusable(self, error: Exception) -> RbeeError:
        if isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in str(error).lower():
            return SshAuthFailedError(
                f"the key {self._target.key or 'named in ~/.ssh/config'} for {self._target.node} has a passphrase",
                hint="Hand it to your agent first: ssh-add FILE",
            )
        if isinstance(error, (asyncssh.KeyImportError, FileNotFoundError, PermissionError)):
            return SshAuthFailedError(
                f"a key for {self._target.node} cannot be read: {error}",
                hint="Name another one with --key FILE, or correct IdentityFile in ~/.ssh/config.",
            )
        return InvalidRequestError(f"~/.ssh/config cannot be used for {self._target.node}: {error}")

    def _where(self) -> str:
        port = "" if self.port == _SSH_PORT else f":{self.port}"
        named = f" ({self.host}{port})" if self.host != self._target.node or port else ""
        return f"{self._target.node}{named}"


def _comment(pair: asyncssh.SSHKeyPair) -> str:
    comment = pair.get_comment()
    return comment or "a key without a comment"


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nobody answers"
    return str(error) or type(error).__name__
