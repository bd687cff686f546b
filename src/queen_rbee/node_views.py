"""Nodes as people and applications see them: what the catalog keeps, and what is known of a hive that is up."""

from dataclasses import dataclass

from queen_rbee.domain.nodes.node import Node
from queen_rbee.hive_registry import HiveRegistry, devices_as_dict
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.contracts.nodes import NodeState, NodeView

_MS_PER_S = 1000


@dataclass(frozen=True)
class NodeViews:
    """Made anew for each question."""

    catalog: NodeCatalog
    hives: HiveRegistry
    workers: WorkerRegistry

    async def all(self) -> tuple[NodeView, ...]:
        """Every node, ordered by name."""
        return tuple(self._view(node) for node in await self.catalog.nodes())

    async def one(self, name: str) -> NodeView:
        """Raises `NodeNotFoundError` for a name that is not in the catalog."""
        return self._view(await self.catalog.get(name))

    def _view(self, node: Node) -> NodeView:
        entry = self.hives.get(node.name)
        seen = node.last_seen_unix
        return NodeView(
            name=node.name,
            transport=node.transport,
            state=entry.state if entry else NodeState.OFFLINE,
            host=None if node.is_local else node.address,
            port=node.port,
            user=node.user,
            key=node.key,
            home=node.home,
            install=node.installs,
            drained=node.drained,
            url=entry.own_url or entry.url if entry else None,
            version=entry.version if entry else node.version,
            last_seen_ms=seen * _MS_PER_S if seen else None,
            last_error=node.last_error,
            devices=devices_as_dict(entry) if entry else None,
            workers=sum(view.node_name == node.name for view in self.workers.views()),
        )
