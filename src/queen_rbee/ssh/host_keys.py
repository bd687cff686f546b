"""Which host keys are trusted: what a person confirmed here, else what OpenSSH's own file says.

`HOME/known_hosts` has the first word on a machine; `~/.ssh/known_hosts` is only ever read. A line that cannot be
understood is skipped, where asyncssh would refuse the whole file.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.known_hosts import SSHKnownHosts

_PRIVATE_FILE = 0o600
_SSH_PORT = 22

Match = tuple[Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey], Sequence[asyncssh.SSHKey]]


@dataclass(frozen=True)
class HostKey:
    """A public key as a person compares it: `SHA256:…`, and as a file holds it."""

    key_type: str
    fingerprint: str
    line: str

    @classmethod
    def of(cls, key: asyncssh.SSHKey) -> "HostKey":
        line = key.export_public_key("openssh").decode("ascii", errors="replace")
        algorithm, data = line.split()[:2]
        return cls(algorithm, key.get_fingerprint("sha256"), f"{algorithm} {data}")


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
        self._rewrite([*self._others(name), f"{name} {key.line}"])

    def forget(self, host: str, port: int | None) -> None:
        """Trust what was confirmed here for that machine no longer."""
        name = _name(host, port)
        if len(others := self._others(name)) != len(_lines(self.ours)):
            self._rewrite(others)

    def _others(self, name: str) -> list[str]:
        return [line for line in _lines(self.ours) if line.split(" ", 1)[0] != name]

    def _rewrite(self, lines: Sequence[str]) -> None:
        draft = self.ours.with_name(f"{self.ours.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
        draft.replace(self.ours)


def _name(host: str, port: int | None) -> str:
    return host if port in {None, _SSH_PORT} else f"[{host}]:{port}"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
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
