"""How the queen reaches the programs on one node, and how they reach her."""

from dataclasses import dataclass, field
from typing import Protocol


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
    """A node whose programs answer under the addresses that they give: this machine, or one over plain HTTP."""

    callback: Callback
    is_coming_back: bool = False

    async def url(self, url: str) -> str:
        return url
