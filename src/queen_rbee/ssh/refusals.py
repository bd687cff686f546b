"""Why there is no connection, told to people: each reason has its own code, names what was tried, and a next step.

Pure: what was found out comes in, an error goes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncssh
from typing_extensions import override

from queen_rbee.ssh.host_keys import HostKey
from queen_rbee.ssh.offered_keys import OfferedKeys
from queen_rbee.ssh.target import Target
from rbee_shared.errors import (
    InvalidRequestError,
    RbeeError,
    SshAuthFailedError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
    SshUnreachableError,
)

_SSH_PORT = 22


@dataclass(frozen=True)
class Place:
    """A node, and where SSH went for it."""

    node: str
    host: str
    port: int

    @override
    def __str__(self) -> str:
        """`mac (10.0.0.3:2222)`, without what the name says already."""
        port = "" if self.port == _SSH_PORT else f":{self.port}"
        named = f" ({self.host}{port})" if self.host != self.node or port else ""
        return f"{self.node}{named}"


def untrusted(place: Place, key: HostKey | None, known: Sequence[str], why: str) -> RbeeError:
    """Its host key does not do. `key`: None if it is not to be confirmed, for the reason `why`."""
    if key is None:
        text = f"{place} shows a host key that is not accepted: {why}"
        return SshHostKeyChangedError(text, hint=_if_right(place, key))
    facts = {"host": place.host, "port": place.port, "key_type": key.key_type, "fingerprint": key.fingerprint}
    if not known:
        text = f"{place} shows a host key that nobody has confirmed yet: {key.fingerprint} ({key.key_type})"
        hint = f"Compare it with the machine's own{_on_it(key)}, then confirm it: rbee-keeper node add {place.node}"
        return SshHostKeyUnknownError(text, hint=hint, details=facts)
    before = ", ".join(known)
    text = f"{place} shows the host key {key.fingerprint}, and not the one that was confirmed: {before}"
    return SshHostKeyChangedError(text, hint=_if_right(place, key), details={**facts, "known_fingerprint": before})


def _if_right(place: Place, key: HostKey | None) -> str:
    return (
        f"Was the machine reinstalled? If not, somebody may be in between. Compare the new key with the machine's "
        f"own{_on_it(key)}; if it is right, accept it: rbee-keeper node trust {place.node}"
    )


def _on_it(key: HostKey | None) -> str:
    return f" (on it: ssh-keygen -lf {key.file})" if key is not None else ""


def refused(place: Place, user: str, tried: OfferedKeys) -> SshAuthFailedError:
    """It lets none of these keys in."""
    port = "" if place.port == _SSH_PORT else f"-p {place.port} "
    hint = (
        f"Put your public key there: ssh-copy-id {port}{user}@{place.host}; "
        f"or name the right one: rbee-keeper node add {place.node} --key FILE"
    )
    text = f"{place} lets {user} not in; tried: {tried}"
    return SshAuthFailedError(text, hint=hint, details={"user": user, "keys_tried": list(tried.names)})


def unreached(place: Place, error: Exception) -> SshUnreachableError:
    """Nobody who speaks SSH answered, or not to the end."""
    why = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        why = "nobody answers"
    if isinstance(error, asyncssh.ChannelOpenError):
        why = f"the last machine on the way to it opens no connection to it: {error}"
    return SshUnreachableError(f"{place}: {why}")


def unusable(target: Target, error: Exception) -> RbeeError:
    """What was told or configured for it cannot be used: nothing was tried."""
    if isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in str(error).lower():
        return SshAuthFailedError(
            f"the key {target.key or 'named in ~/.ssh/config'} for {target.node} has a passphrase",
            hint="Hand it to your agent first: ssh-add FILE",
        )
    if isinstance(error, (asyncssh.KeyImportError, FileNotFoundError, PermissionError)):
        return SshAuthFailedError(
            f"a key for {target.node} cannot be read: {error}",
            hint="Name another one with --key FILE, or correct IdentityFile in ~/.ssh/config.",
        )
    return InvalidRequestError(f"~/.ssh/config cannot be used for {target.node}: {error}")
