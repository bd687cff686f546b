"""Wakes the hive of another machine over SSH, or adopts the one that an operator started there."""

from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from queen_rbee.callbacks import Callbacks
from queen_rbee.domain.nodes.node import DEFAULT_HIVE_PORT, Node
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.nodes.link import Links, NodeLink
from queen_rbee.nodes.preparation import Preparation, Prepared, Visit
from queen_rbee.nodes.remote_start import Place, RemoteStart, end_remotely
from queen_rbee.nodes.waker import Doing, Gone, Waker
from queen_rbee.reach import Callback
from queen_rbee.ssh.target import Target
from rbee_shared.errors import HiveOwnedError, RequestTimeoutError
from rbee_shared.narration import Narrator

_END_S = 40.0  # its drain, a signal, and a drain again


@dataclass(frozen=True)
class SshReach:
    """Everything inside the node's SSH connection."""

    link: NodeLink
    token: str

    @property
    def callback(self) -> Callback:
        return Callback(self.link.back_url, self.token)

    @property
    def is_coming_back(self) -> bool:
        return self.link.is_coming_back

    async def url(self, url: str) -> str:
        return await self.link.url(url)


@dataclass(frozen=True)
class SshWaker(Waker):
    """For nodes of transport `ssh`."""

    links: Links
    callbacks: Callbacks
    preparation: Preparation
    start: RemoteStart
    arrival: HiveArrival

    @override
    async def wake(self, node: Node, tell: Narrator, doing: Doing, gone: Gone) -> HiveEntry:
        tell.tell("wake_hive", f"waking the hive at {node.name} over SSH", cute="🐝")
        doing(f"connecting to {node.name} over SSH")
        async with self.links.use(Target.of(node)) as link:
            visit = Visit(node, await link.connection(), tell, doing)
            prepared = await self.preparation.prepare(visit, may_install=node.installs)
            await link.open_back()
            reach = SshReach(link, self.callbacks.new_token(node.name))
            doing(f"waiting for the hive at {node.name} to start")
            place = Place(node, prepared.home, prepared.version.argv("rbee-hive"))
            if prepared.hive is not None and (entry := await self._adopted(place, prepared, reach, tell)) is not None:
                return entry
            options = ["--port", str(node.hive_port or DEFAULT_HIVE_PORT)]
            return await self.start.start(place, reach, options, gone)

    @override
    async def find(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry | None:
        doing(f"looking for the hive at {node.name}")
        async with self.links.use(Target.of(node)) as link:
            visit = Visit(node, await link.connection(), tell, doing)
            prepared = await self.preparation.as_it_is(visit)
            if prepared is None or prepared.hive is None:
                return None
            await link.open_back()
            reach = SshReach(link, self.callbacks.new_token(node.name))
            return await self._adopted(
                Place(node, prepared.home, prepared.version.argv("rbee-hive")), prepared, reach, tell
            )

    async def _adopted(self, place: Place, prepared: Prepared, reach: SshReach, tell: Narrator) -> HiveEntry | None:
        """The hive that its run file names; None if that is not what answers there."""
        node, hive = place.node, prepared.hive
        assert hive is not None
        try:
            health = await self.arrival.looked_at(await reach.url(hive.url))
        except RequestTimeoutError:
            tell.tell("kill_hive", f"the hive on {node.name} does not answer: ending it", level="warning")
            await end_remotely(await reach.link.connection(), place, _END_S)
            return None
        if health is None or health.get("instance") != hive.instance:
            return None
        tell.tell("adopt_hive", f"adopting the hive that already runs on {node.name} at {hive.url}", cute="🤝")
        try:
            keep = partial(self.start.keep, place)
            return await self.arrival.adopted(node.name, hive.url, reach, hive.instance, keep=keep)
        except HiveOwnedError as error:
            raise HiveOwnedError(
                f"{error.message} (pid {hive.pid} of {prepared.user} on {node.name})",
                hint=error.hint,
                details={**error.details, "pid": hive.pid, "user": prepared.user},
            ) from None
