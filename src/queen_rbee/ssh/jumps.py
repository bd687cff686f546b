"""The machines that `ProxyJump` leads through: who they are, and what is said when the way ends at one of them."""

import re

from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError, RbeeError, SshAuthFailedError, SshUnreachableError

_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^/]+)@)?(?:\[(?P<bare>[^][]+)\]|(?P<host>[^][:@/]+))(?::(?P<port>[0-9]{1,5}))?/?"
)
_LAST_PORT = 65_535


def hops(proxy_jump: str) -> tuple[Target, ...]:
    """From here to there, each written as `[ssh://][user@]host[:port]`, with commas between.

    Raises:
        ValueError: it is not written like that.
    """
    return tuple(_hop(text) for text in proxy_jump.split(","))


def _hop(text: str) -> Target:
    found = _HOP.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if not found or (port is not None and not 0 < port <= _LAST_PORT):
        raise ValueError(f"ProxyJump {text!r} names no machine")
    host = found["bare"] or found["host"]
    return Target(host, host, port, found["user"])


def blocked(node: str, hop: Target, error: RbeeError) -> RbeeError:
    """Why `node` is not reached: `error` befell `hop`. Nobody shall take its host key for the node's."""
    kind = type(error) if isinstance(error, (SshAuthFailedError, InvalidRequestError)) else SshUnreachableError
    return kind(
        f"the way to {node} leads through {hop}: {error.message}",
        hint=f"`ssh {hop.host} true` must work here without a question; ~/.ssh/config says how {hop.host} is reached.",
    )
