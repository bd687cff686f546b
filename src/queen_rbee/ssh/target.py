"""Which machine, as whom, with which key: what SSH has to be told, and what it is left to find out by itself."""

from dataclasses import dataclass

from typing_extensions import override

from queen_rbee.domain.nodes.node import Node


@dataclass(frozen=True)
class Target:
    """What is None stands in `~/.ssh/config`, or is SSH's own default. `node` is for people."""

    node: str
    host: str
    port: int | None = None
    user: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, node: Node) -> "Target":
        return cls(node.name, node.address, node.port, node.user, node.key)

    @override
    def __str__(self) -> str:
        """`rita@10.0.0.3:2222`, as far as it is told."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.host}{port}"
