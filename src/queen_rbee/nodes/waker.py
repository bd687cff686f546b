"""Brings up the hive of one node, or takes over the one that runs there."""

from collections.abc import Callable
from typing import Protocol

from queen_rbee.domain.nodes.node import Node
from queen_rbee.hive_process import HiveProcess
from queen_rbee.hive_registry import HiveEntry
from rbee_shared.narration import Narrator

Doing = Callable[[str], None]


class Gone(Protocol):
    """Called when a hive that was started has ended."""

    def __call__(self, process: HiveProcess, how: str, *, expected: bool) -> None: ...


class Waker(Protocol):
    """For one kind of node."""

    async def wake(self, node: Node, tell: Narrator, doing: Doing, gone: Gone) -> HiveEntry:
        """The node's hive, up and heard of. `doing` is told what this waits for.

        Raises:
            RbeeError: why it cannot be had; nothing that was begun is left then.
        """
        ...

    async def find(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry | None:
        """The hive that runs there already, taken over; None if there is none. Starts and installs nothing.

        Raises:
            RbeeError: why that cannot be found out, or it cannot be taken over.
        """
        ...
