"""Opens authenticated SSH connections, and says exactly why it cannot.

Guarantees: only keys and the agent are offered, nobody is asked for anything; a host key that nobody has confirmed
ends the attempt before a single secret is shown. All this holds for each machine that `ProxyJump` leads through.
"""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import asyncssh
from typing_extensions import override

from queen_rbee.ssh.host_keys import HostKey, HostKeys, Match, TrustedKeys, kinds_to_ask_for
from queen_rbee.ssh.jumps import blocked, hops
from queen_rbee.ssh.offered_keys import offered_keys
from queen_rbee.ssh.refusals import Place, refused, unreached, untrusted, unusable
from queen_rbee.ssh.target import Target
from rbee_shared.errors import RbeeError, SshHostKeyChangedError, SshHostKeyUnknownError, SshUnreachableError

_PAUSE_S = 0.2
_KEEPALIVES_MISSED = 3
_DEEPEST_JUMP = 8
_NOTHING: Match = ([], [], [])
_SSH_PORT = 22
_TOO_MANY_KEYS = "Too many authentication failures"
_NO_ADDRESS = (UnicodeError, OverflowError)  # what Python says of a host name or a port that cannot be


@dataclass(frozen=True)
class Shown:
    """A host key of a machine, where it was found, and the fingerprints that are trusted for it.

    `is_changed`: some are trusted, and the machine has none of those keys.
    """

    key: HostKey
    host: str
    port: int
    known: tuple[str, ...]
    is_changed: bool


@dataclass(frozen=True)
class _Terms:
    """`trusts`: whether any key does; `certificates`: by an authority, too; `passing_over`: kinds not asked for."""

    trusts: bool = True
    certificates: bool = True
    passing_over: frozenset[str] = frozenset()


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
            try:
                return await self._reach(target)
            except SshUnreachableError:
                if not left:
                    raise
            await anyio.sleep(_PAUSE_S)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _reach(self, target: Target) -> asyncssh.SSHClientConnection:
        attempt = _Attempt(self, target)
        try:
            return await attempt.make()
        except SshHostKeyChangedError:
            if not attempt.met_an_authority:
                raise
        return await _Attempt(self, target, _Terms(certificates=False)).make()  # what it certifies may be trusted

    async def presented_key(self, target: Target, fingerprint: str | None = None) -> Shown:
        """A host key that `target` shows now, trusted or not: the one with that fingerprint, if it has several.

        Raises:
            SshUnreachableError: nobody answers there.
            SshAuthFailedError, InvalidRequestError: there is no way to it.
        """
        first = _Attempt(self, target, _Terms(trusts=False))
        key = await first.look()
        is_changed = bool(first.known) and key.fingerprint not in first.known
        if fingerprint is not None and key.fingerprint != fingerprint:
            key = await self._another_key(target, fingerprint, key) or key
        return Shown(key, first.host, first.port, first.known, is_changed)

    async def _another_key(self, target: Target, fingerprint: str, shown: HostKey) -> HostKey | None:
        """A server shows one key at a time, of a kind that it is asked for."""
        seen = frozenset(shown.algorithms)
        with suppress(SshUnreachableError):  # asked for kinds that it does not have it hangs up
            while True:
                key = await _Attempt(self, target, _Terms(trusts=False, passing_over=seen)).look()
                if key.fingerprint == fingerprint:
                    return key
                if seen.issuperset(key.algorithms):
                    return None
                seen = seen.union(key.algorithms)
        return None


class _Attempt(asyncssh.SSHClient):
    """One attempt to connect, and what it has learnt by the time it fails."""

    def __init__(
        self,
        dialler: Dialler,
        target: Target,
        terms: _Terms = _Terms(),
        tunnel: asyncssh.SSHClientConnection | None = None,
        jumps_left: int = _DEEPEST_JUMP,
    ) -> None:
        self._dialler = dialler
        self._target = target
        self._terms = terms
        self._tunnel = tunnel
        self._jumps_left = jumps_left
        self._limit = anyio.CancelScope()
        self._kinds = kinds_to_ask_for(_NOTHING, terms.passing_over)
        self.known: tuple[str, ...] = ()
        self.presented: HostKey | None = None
        self.met_an_authority = False
        self.host, self.port = target.host, target.port or _SSH_PORT

    async def make(self) -> asyncssh.SSHClientConnection:
        """A connection that has logged in, and that takes the way to it along when it ends."""
        with ExitStack() as unless_made:
            if self._tunnel is not None:
                unless_made.callback(self._tunnel.abort)
            try:
                options = await anyio.to_thread.run_sync(self._options)
                way = hops(str(options.tunnel)) if options.tunnel and self._tunnel is None else ()
            except (OSError, ValueError, RuntimeError) as error:  # the last: a home of nobody's
                raise unusable(self._target, error) from None
            if way:
                self._tunnel = await self._through(way)
                unless_made.callback(self._tunnel.abort)
            connection = await self._login(options)
            unless_made.pop_all()
            return connection

    async def look(self) -> HostKey:
        """The host key that is shown to who trusts none."""
        try:
            await self.make()
        except (SshHostKeyUnknownError, SshHostKeyChangedError):
            if self.presented is None:
                raise
            return self.presented
        raise AssertionError("unreachable: where no key is trusted no attempt succeeds")

    async def _through(self, way: tuple[Target, ...]) -> asyncssh.SSHClientConnection:
        """A connection to the last machine of that way, each reached through the one before."""
        if not self._jumps_left:
            raise unusable(self._target, ValueError("ProxyJump leads round in a circle"))
        tunnel = None
        for hop in way:
            try:
                tunnel = await _Attempt(self._dialler, hop, tunnel=tunnel, jumps_left=self._jumps_left - 1).make()
            except RbeeError as error:
                raise blocked(self._target.node, hop, error) from None
        assert tunnel is not None
        return tunnel

    async def _login(self, options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHClientConnection:
        try:
            return await self._connect(options)
        except asyncssh.HostKeyNotVerifiable as error:
            raise untrusted(self._place(), self.presented, self.known, str(error)) from None
        except asyncssh.PermissionDenied:
            raise await self._refused(options) from None
        except (TimeoutError, OSError, asyncssh.Error, *_NO_ADDRESS) as error:
            if _TOO_MANY_KEYS in str(error):
                raise await self._refused(options) from None
            raise unreached(self._place(), error) from None

    async def _connect(self, options: asyncssh.SSHClientConnectionOptions) -> asyncssh.SSHClientConnection:
        """A time to be reached in, and from then on one to log in; through a command only both together."""
        limit_s = self._dialler.connect_s + (self._dialler.login_s if options.proxy_command else 0)
        with anyio.fail_after(limit_s) as self._limit:
            return await asyncssh.connect(self._target.host, config=None, options=options, tunnel=self._tunnel)

    @override
    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        if self._tunnel is not None:
            conn.set_tunnel(self._tunnel)
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
            server_host_key_algs=self._kinds,  # the list itself: it is read again after `_match`
            keepalive_interval=dialler.keepalive_s,
            keepalive_count_max=_KEEPALIVES_MISSED,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_auth=False,
            gss_kex=False,
            agent_forwarding=False,
            x11_forwarding=False,
            send_env=None,
            command=None,
            request_pty=False,
            **told,
        )

    def _match(self, trusted: TrustedKeys, host: str, address: str, port: int | None) -> Match:
        """Called by asyncssh when it knows whom it talks to, and before it reads `_kinds`."""
        self.host, self.port = host, port or _SSH_PORT
        match = trusted.match(host, address, port)
        self.known = tuple(dict.fromkeys(HostKey.of(key).fingerprint for key in match[0]))
        certificates = self._terms.certificates and self._terms.trusts
        self._kinds[:] = kinds_to_ask_for(match, self._terms.passing_over, certificates=certificates)
        return match if self._terms.trusts else _NOTHING

    @override
    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called only for a key that is not trusted: it stays so, but it can be shown."""
        self.presented = HostKey.of(key)
        return False

    @override
    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called only for a certificate whose authority is not trusted."""
        self.met_an_authority = True
        return False

    async def _refused(self, options: asyncssh.SSHClientConnectionOptions) -> RbeeError:
        return refused(self._place(), options.username, await offered_keys(options))

    def _place(self) -> Place:
        return Place(self._target.node, self.host, self.port)
