"""How the queen reaches the programs on one node, and how they reach her."""

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

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
        """


@dataclass(frozen=True)
class DirectReach:
    """This machine, or one over plain HTTP at `address`: there a program that listens everywhere names only itself."""

    callback: Callback
    address: str | None = None
    is_coming_back: bool = False

    async def url(self, url: str) -> str:
        parts = urlsplit(url)
        if self.address is None or parts.hostname not in _OWN:
            return url
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{parts.scheme}://{host}:{parts.port}"
