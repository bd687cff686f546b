"""Who is meant by a node's name: this machine, which is `localhost`; the catalog's nodes; who `~/.ssh/config` names."""

from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from queen_rbee.domain.nodes.changes import completed
from queen_rbee.domain.nodes.node import LOCAL_NODE, Node
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.nodes.own_names import OwnNames
from queen_rbee.ssh.config_names import names_a_host
from rbee_shared.contracts.nodes import NodeOrder
from rbee_shared.errors import NodeNotFoundError


@dataclass(frozen=True)
class NodeDirectory:
    """`ssh_config`: OpenSSH's file. This machine is a node from the start, before the catalog has it."""

    catalog: NodeCatalog
    ssh_config: Path
    own: OwnNames = field(default_factory=OwnNames)

    async def nodes(self) -> tuple[Node, ...]:
        """The catalog's nodes and this machine, ordered by name."""
        listed = await self.catalog.nodes()
        if any(node.name == LOCAL_NODE for node in listed):
            return listed
        return tuple(sorted((*listed, Node(LOCAL_NODE, "local")), key=lambda node: node.name))

    async def look_up(self, wanted: str) -> Node:
        """The node of that name or address; the catalog stays as it is.

        Raises:
            NodeNotFoundError: nobody knows it.
        """
        nodes = await self.nodes()
        if (node := await self._known(wanted, nodes)) is not None:
            return node
        if await anyio.to_thread.run_sync(names_a_host, wanted, self.ssh_config):
            return Node(wanted, "ssh")
        raise NodeNotFoundError(f"there is no node {wanted!r}; the nodes are: {', '.join(node.name for node in nodes)}")

    async def get(self, wanted: str) -> Node:
        """The same; one that was not in the catalog is from now on.

        Raises:
            NodeNotFoundError: nobody knows it.
        """
        node = await self.look_up(wanted)
        await self.catalog.add(node.name, transport=node.transport)
        return node

    async def completed(self, order: NodeOrder) -> NodeOrder:
        """The order with all that it leaves out as it is known of the node of that very name.

        Whatever this machine is called in it, it is `localhost` then.
        """
        known = await self._known(order.name, await self.nodes())
        if known is not None and known.is_local:
            return order.model_copy(update={"name": known.name})
        return completed(order, known) if known is not None and known.name == order.name else order

    async def _known(self, wanted: str, nodes: tuple[Node, ...]) -> Node | None:
        """By its name first, then by its address."""
        if self.own.include(wanted):
            return _named(LOCAL_NODE, nodes)
        if (node := _named(wanted, nodes)) is not None:
            return node
        if (node := next((node for node in nodes if node.is_called(wanted)), None)) is not None:
            return node
        return _named(LOCAL_NODE, nodes) if await self.own.lead_here(wanted) else None


def _named(name: str, nodes: tuple[Node, ...]) -> Node | None:
    return next((node for node in nodes if node.name == name), None)
