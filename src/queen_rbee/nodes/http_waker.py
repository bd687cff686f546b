"""Takes over a hive that answers over plain HTTP, or starts one over SSH that listens on its node's own address."""

import socket
from dataclasses import dataclass

import anyio.to_thread
from typing_extensions import override

from queen_rbee.callbacks import Callbacks
from queen_rbee.domain.nodes.node import DEFAULT_HIVE_PORT, Node
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.preparation import Preparation, Visit
from queen_rbee.nodes.remote_start import Place, RemoteStart
from queen_rbee.nodes.waker import Doing, Gone, Waker
from queen_rbee.reach import Callback, DirectReach
from queen_rbee.ssh.target import Target
from rbee_shared.errors import NodeUnreachableError
from rbee_shared.narration import Narrator


@dataclass(frozen=True)
class HttpWaker(Waker):
    """For nodes of transport `http`: no forwards, tokens on every call, the queen named by her network address."""

    links: Links
    callbacks: Callbacks
    preparation: Preparation
    start: RemoteStart
    arrival: HiveArrival

    @override
    async def wake(self, node: Node, tell: Narrator, doing: Doing, gone: Gone) -> HiveEntry:
        way = await self._way(node, doing)
        if (entry := await self._adopted(node, way, tell)) is not None:
            return entry
        tell.tell("wake_hive", f"waking the hive at {node.name} over SSH; it will listen on {way.address}", cute="🐝")
        async with self.links.use(Target.of(node)) as link:
            visit = Visit(node, await link.connection(), tell, doing)
            prepared = await self.preparation.prepare(visit, may_install=node.installs)
            options = ["--port", str(way.port), "--bind", way.address]
            place = Place(node, prepared.home, prepared.version.argv("rbee-hive"))
            return await self.start.start(place, way.reach, options, gone)

    @override
    async def find(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry | None:
        return await self._adopted(node, await self._way(node, doing), tell)

    async def _way(self, node: Node, doing: Doing) -> "_Way":
        port = node.hive_port or DEFAULT_HIVE_PORT
        doing(f"looking for the hive at {node.name}")
        own_address, address = await anyio.to_thread.run_sync(_addresses, node.address, port)
        callback = Callback(await self.callbacks.url_at(own_address), self.callbacks.new_token(node.name))
        return _Way(address, port, DirectReach(callback, address))

    async def _adopted(self, node: Node, way: "_Way", tell: Narrator) -> HiveEntry | None:
        health = await self.arrival.looked_at(way.url)
        if health is None:
            return None
        tell.tell("adopt_hive", f"adopting the hive that already runs on {node.name} at {way.url}", cute="🤝")
        return await self.arrival.adopted(node.name, way.url, way.reach, str(health.get("instance")))


@dataclass(frozen=True)
class _Way:
    """To a hive over plain HTTP, and from it to its queen."""

    address: str
    port: int
    reach: DirectReach

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"


def _addresses(host: str, port: int) -> tuple[str, str]:
    """This machine's address on the way to `host`, and that of `host`. Nothing is sent. Blocking: names are looked up.

    Raises:
        NodeUnreachableError: there is no such host, or no way to it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0]), str(address[0])
    except OSError as error:
        raise NodeUnreachableError(f"{host}: {error.strerror or error}") from None
