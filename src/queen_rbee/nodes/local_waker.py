"""Wakes the hive of this machine as a child process, or adopts an operator's, and minds it until it ends."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from typing_extensions import override

from queen_rbee.domain.nodes.node import Node
from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.identity import Identity
from queen_rbee.nodes.waker import Doing, Gone, Waker
from queen_rbee.reach import Callback, DirectReach
from rbee_shared.child import Child, Command, describe_exit, running
from rbee_shared.clocks import Clocks
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration, Narrator, correlation_id
from rbee_shared.paths import Home
from rbee_shared.programs import program_argv
from rbee_shared.run_file import read_run_file


@dataclass(frozen=True)
class LocalWaker(Waker):
    """`port`: where the hive listens if that is free; it takes any other port if not, and says which.

    `group`: where it is minded. `hear`: what becomes of the lines of a node's hive.
    """

    home: Home
    clocks: Clocks
    identity: Identity
    arrival: HiveArrival
    port: int
    hear: Callable[[str, Narration], None]
    stopping: Callable[[], bool]
    group: TaskGroup

    @override
    async def find(self, node: Node, tell: Narrator, doing: Doing) -> HiveEntry | None:
        running_one = await anyio.to_thread.run_sync(read_run_file, self.home.run_file("rbee-hive"))
        if running_one is None:
            return None
        health = await self.arrival.looked_at(running_one.url)
        if health is None or health.get("instance") != running_one.instance:
            return None
        tell.tell("adopt_hive", f"adopting the hive that already runs at {running_one.url}", cute="🤝")
        return await self.arrival.adopted(node.name, running_one.url, self._reach(), running_one.instance)

    @override
    async def wake(self, node: Node, tell: Narrator, doing: Doing, gone: Gone) -> HiveEntry:
        if (entry := await self.find(node, tell, doing)) is not None:
            return entry
        where = f":{self.port}" if self.port else "a free port"
        tell.tell("wake_hive", f"waking the hive at {node.name} on {where}", cute="🐝")
        epoch = await self.arrival.contacts.catalog.begin_epoch()
        child = await self._launch(node.name, epoch, gone)
        return await self.arrival.started(node.name, child, self._reach(), epoch)

    def _reach(self) -> DirectReach:
        return DirectReach(Callback(self.identity.url))

    async def _launch(self, node: str, epoch: int, gone: Gone) -> Child:
        """Spawn it in `group`. From the main thread: the kernel ends it with the thread that spawned it."""
        child = await self.group.start(self._mind, node, epoch, gone)
        assert isinstance(child, Child)
        return child

    async def _mind(self, node: str, epoch: int, gone: Gone, *, task_status: TaskStatus[Child]) -> None:
        argv = [*program_argv("rbee-hive"), "daemon", "--parent", "stdin"]
        argv += ["--port", str(self.port), "--name", node]
        command = Command(argv, stderr=self.home.logs / "rbee-hive.err")
        handshake = await anyio.to_thread.run_sync(self._handshake, epoch, correlation_id.get())

        def hear(line: Narration) -> None:
            self.hear(node, line)

        async with running(command, handshake, hear, stop_grace_s=self.clocks.parent_lost_drain_s) as child:
            task_status.started(child)
            returncode = await child.wait_exit()
        gone(child, describe_exit(returncode), expected=self.stopping() or child.listening is None)

    def _handshake(self, epoch: int, correlation: str | None) -> Handshake:
        return Handshake.from_here(
            token=self.identity.token,
            epoch=epoch,
            queen_url=self.identity.url,
            queen_id=self.identity.queen_id,
            correlation_id=correlation,
        )
