"""Who is meant by a node's name: the catalog first, then `~/.ssh/config`; this machine's own name is `localhost`."""

import socket
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from queen_rbee.domain.nodes.node import LOCAL_NODE, Node
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.ssh.config_names import names_a_host


@dataclass(frozen=True)
class NodeDirectory:
    """`ssh_config`: OpenSSH's file."""

    catalog: NodeCatalog
    ssh_config: Path

    async def get(self, wanted: str) -> Node:
        """The node of that name or address; one that only `~/.ssh/config` names is a node from now on.

        Raises:
            NodeNotFoundError: neither knows it.
        """
        if wanted.lower() in {LOCAL_NODE, socket.gethostname().lower()}:
            await self.catalog.add(LOCAL_NODE, transport="local")
            return await self.catalog.get(LOCAL_NODE)
        if await self.catalog.find(wanted) is None and await anyio.to_thread.run_sync(
            names_a_host, wanted, self.ssh_config
        ):
            await self.catalog.put(Node(wanted, "ssh"))
        return await self.catalog.get(wanted)
