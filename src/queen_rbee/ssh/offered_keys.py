"""Which keys a machine was offered, named so that their owner knows them: those of files, and what the agent holds."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import anyio
import asyncssh
from typing_extensions import override

_AGENT_S = 2.0
_NAMED = 10


@dataclass(frozen=True)
class OfferedKeys:
    """`names`: `me@blep (ssh-ed25519)`, each key once. `agent`: why none of them is an agent's, else empty."""

    names: tuple[str, ...]
    agent: str

    @override
    def __str__(self) -> str:
        """For people, not too long."""
        more = len(self.names) - _NAMED
        shown = (*self.names[:_NAMED], f"{more} more") if more > 0 else self.names
        return ", ".join(filter(None, [*shown, self.agent]))


async def offered_keys(options: asyncssh.SSHClientConnectionOptions) -> OfferedKeys:
    """What a connection with these options offers; an agent that does not answer soon is not waited for."""
    files = options.client_keys or ()
    if not options.agent_path:
        return OfferedKeys(_names(files), "no agent")
    held: Sequence[asyncssh.SSHKeyPair] = ()
    try:
        with anyio.fail_after(_AGENT_S):
            agent = await asyncssh.connect_agent(options.agent_path)
            async with agent:
                held = await agent.get_keys(options.agent_identities)
    except (TimeoutError, OSError, ValueError):
        return OfferedKeys(_names(files), "an agent that does not answer")
    return OfferedKeys(_names([*held, *files]), "" if held else "an agent without a key for it")


def _names(pairs: Iterable[asyncssh.SSHKeyPair]) -> tuple[str, ...]:
    return tuple({pair.public_data: _name(pair) for pair in pairs}.values())


def _name(pair: asyncssh.SSHKeyPair) -> str:
    called = pair.get_comment(errors="replace") or _fingerprint(pair.public_data)
    return f"{called} ({pair.algorithm.decode(errors='replace')})"


def _fingerprint(public_data: bytes) -> str:
    """As `ssh-add -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_data).digest()).decode().rstrip("=")
