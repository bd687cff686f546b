"""Nodes as people and applications see them: what the catalog keeps, and what is known of a hive that is up."""

import time
from dataclasses import dataclass

from queen_rbee.domain.nodes.node import Node
from queen_rbee.hive_registry import HiveEntry, HiveRegistry, devices_as_dict
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.contracts.nodes import KnownDeviceView, NodeState, NodeView

_MS_PER_S = 1000


@dataclass(frozen=True)
class NodeViews:
    """Made anew for each question."""

    directory: NodeDirectory
    hives: HiveRegistry
    workers: WorkerRegistry

    async def all(self) -> tuple[NodeView, ...]:
        """Every node, ordered by name."""
        return tuple(self._view(node) for node in await self.directory.nodes())

    async def one(self, name: str) -> NodeView:
        """Raises `NodeNotFoundError` for a name that nobody knows."""
        return self._view(await self.directory.look_up(name))

    def _view(self, node: Node) -> NodeView:
        entry = self.hives.get(node.name)
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
            last_seen_ms=self._last_seen_ms(node, entry),
            last_error=node.last_error,
            devices=devices_as_dict(entry) if entry else None,
            known_devices=tuple(
                KnownDeviceView(id=known.id, backend=known.backend, name=known.name, memory_bytes=known.memory_bytes)
                for known in node.devices
            ),
            workers=sum(view.node_name == node.name for view in self.workers.views()),
        )

    def _last_seen_ms(self, node: Node, entry: HiveEntry | None) -> int | None:
        """By its last heartbeat, or by what is remembered of it."""
        if entry is not None and entry.heard.is_set():
            return int((time.time() - self.hives.age_s(entry)) * _MS_PER_S)
        return node.last_seen_unix * _MS_PER_S if node.last_seen_unix else None
