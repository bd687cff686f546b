"""Which host keys are trusted: what a person confirmed here, else what OpenSSH's own file says.

`HOME/known_hosts` has the first word on a machine; `~/.ssh/known_hosts` is only ever read. A line that cannot be
understood is skipped, where asyncssh would refuse the whole file. Programs that write at once lose no key of another.
"""

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.known_hosts import SSHKnownHosts
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs, get_public_key_algs

from rbee_shared.file_lock import locked

_PRIVATE_FILE = 0o600
_SSH_PORT = 22
_LOCK_S = 10.0
_LOCK_POLL_S = 0.01
_LIKED_BEST = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")

Match = tuple[Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey]]


@dataclass(frozen=True)
class HostKey:
    """A public key as a person compares it: `SHA256:…`, and as a file holds it. `algorithms`: it signs by these."""

    key_type: str
    fingerprint: str
    line: str
    algorithms: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: asyncssh.SSHKey) -> "HostKey":
        line = key.export_public_key("openssh").decode("ascii", errors="replace")
        algorithm, data = line.split()[:2]
        return cls(algorithm, key.get_fingerprint("sha256"), f"{algorithm} {data}", _algorithms(key))

    @property
    def file(self) -> str:
        """Where its machine has it, as OpenSSH is set up by default."""
        kind = "ecdsa" if self.key_type.startswith("ecdsa-") else self.key_type.removeprefix("ssh-")
        return f"/etc/ssh/ssh_host_{kind}_key.pub"


@dataclass(frozen=True)
class TrustedKeys:
    """What both files say, as they were read."""

    ours: SSHKnownHosts
    theirs: SSHKnownHosts

    def match(self, host: str, address: str, port: int | None) -> Match:
        """Keys, certificate authorities and revoked keys of a machine; `port` None is 22."""
        port = None if port == _SSH_PORT else port
        our_keys, our_authorities, our_revoked, *_ = self.ours.match(host, address, port)
        keys, authorities, revoked, *_ = self.theirs.match(host, address, port)
        if our_keys or our_authorities:
            keys, authorities = our_keys, our_authorities
        return keys, authorities, [*our_revoked, *revoked]


@dataclass(frozen=True)
class HostKeys:
    """`ours` is written, `theirs` is not. Every method is blocking: call it in a thread."""

    ours: Path
    theirs: Path

    def read(self) -> TrustedKeys:
        """Both files as they are now."""
        return TrustedKeys(_known(self.ours), _known(self.theirs))

    def accept(self, host: str, port: int | None, key: HostKey) -> None:
        """Trust that key for that machine from now on, and no other one."""
        name = _name(host, port)
        self._change(lambda lines: [*_others(lines, name), f"{name} {key.line}"])

    def forget(self, host: str, port: int | None) -> None:
        """Trust what was confirmed here for that machine no longer."""
        self._change(lambda lines: _others(lines, _name(host, port)))

    def _change(self, change: Callable[[list[str]], list[str]]) -> None:
        with locked(self.ours.with_name(f"{self.ours.name}.lock")):
            before = _lines(self.ours)
            if (after := change(before)) != before:
                self._rewrite(after)

    def _rewrite(self, lines: Sequence[str]) -> None:
        draft = self.ours.with_name(f".{self.ours.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in lines)
            draft.replace(self.ours)
        finally:
            draft.unlink(missing_ok=True)


def kinds_to_ask_for(match: Match, passing_over: Collection[str] = (), *, certificates: bool = True) -> list[str]:
    """The algorithms of host keys in the order in which a server is asked for them: it shows a key of the first it has.

    What is known of it comes first, so that another key than the known one means that the known one is gone; then what
    OpenSSH likes best, so that a person sees the same key with both. Certificates are asked for only where an authority
    is trusted: else one is shown in the place of the key.
    """
    keys, authorities, _ = match
    known = [algorithm for key in keys for algorithm in _algorithms(key)]
    certified = _names(get_default_certificate_algs()) if authorities and certificates else []
    asked = [*certified, *known, *_LIKED_BEST, *_names(get_default_public_key_algs())]
    return [algorithm for algorithm in dict.fromkeys(asked) if algorithm not in passing_over]


def _algorithms(key: asyncssh.SSHKey) -> tuple[str, ...]:
    usable = get_public_key_algs()
    return tuple(_names(algorithm for algorithm in key.sig_algorithms if algorithm in usable))


def _names(algorithms: Iterable[bytes]) -> list[str]:
    return [algorithm.decode("ascii") for algorithm in algorithms]


def _others(lines: Sequence[str], name: str) -> list[str]:
    return [line for line in lines if line.split(" ", 1)[0] != name]


def _name(host: str, port: int | None) -> str:
    return host if port in {None, _SSH_PORT} else f"[{host}]:{port}"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _known(file: Path) -> SSHKnownHosts:
    known = SSHKnownHosts()
    for line in _lines(file):
        try:
            known.load(line)
        except ValueError:
            continue
    return known
