"""How the queen reaches the programs on one node, and how they reach her."""

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from rbee_shared.errors import BadPeerError

_OWN = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Callback:
    """Where a hive reports to. `token` None: the cluster's own."""

    url: str
    token: str | None = field(default=None, repr=False)


class Reach(Protocol):
    """One node's."""

    @property
    def callback(self) -> Callback:
        """What the node's hive is told."""

    @property
    def is_coming_back(self) -> bool:
        """Its connection was lost, and is being made anew."""

    async def url(self, url: str) -> str:
        """Where a program of that node that calls itself `url` answers from here, now.

        Raises:
            NodeUnreachableError: the node cannot be reached, and that will not change soon.
            BadPeerError: that is no URL of a program.
        """


@dataclass(frozen=True)
class DirectReach:
    """This machine, or one over plain HTTP at `address`: there a program that listens everywhere names only itself."""

    callback: Callback
    address: str | None = None
    is_coming_back: bool = False

    async def url(self, url: str) -> str:
        port = port_of(url)
        if self.address is None or urlsplit(url).hostname not in _OWN:
            return url
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{port}"


def port_of(url: str) -> int:
    """The port that a program of another machine says it answers at.

    Raises:
        BadPeerError: that is no URL with a port.
    """
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    if not port:
        raise BadPeerError(f"a program says that it answers at {url[:100]!r}, which names no port")
    return port
