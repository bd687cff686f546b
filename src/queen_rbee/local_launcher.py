"""Starts the hive of this machine as a child process and minds it until it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from queen_rbee.identity import Identity
from rbee_shared.child import Child, Command, describe_exit, running
from rbee_shared.clocks import Clocks
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration, correlation_id
from rbee_shared.paths import Home
from rbee_shared.programs import program_argv


class Gone(Protocol):
    """Called when the hive has ended."""

    def __call__(self, child: Child, how: str, *, expected: bool) -> None: ...


@dataclass(frozen=True)
class LocalLauncher:
    """`port`: where the hive listens if that is free; it takes any other port if not, and says which."""

    home: Home
    clocks: Clocks
    identity: Identity
    port: int
    node: str
    hear: Callable[[Narration], None]
    stopping: Callable[[], bool]

    @property
    def where(self) -> str:
        """For people."""
        return f":{self.port}" if self.port else "a free port"

    async def launch(self, group: TaskGroup, gone: Gone) -> Child:
        """Spawn it in `group`. From the main thread: the kernel ends it with the thread that spawned it."""
        child = await group.start(self._mind, gone)
        assert isinstance(child, Child)
        return child

    async def _mind(self, gone: Gone, *, task_status: TaskStatus[Child]) -> None:
        argv = [*program_argv("rbee-hive"), "daemon", "--parent", "stdin"]
        argv += ["--port", str(self.port), "--name", self.node]
        command = Command(argv, stderr=self.home.logs / "rbee-hive.err")
        handshake = await anyio.to_thread.run_sync(self._handshake, correlation_id.get())
        async with running(command, handshake, self.hear, stop_grace_s=self.clocks.parent_lost_drain_s) as child:
            task_status.started(child)
            returncode = await child.wait_exit()
        gone(child, describe_exit(returncode), expected=self.stopping() or child.listening is None)

    def _handshake(self, correlation: str | None) -> Handshake:
        return Handshake.from_here(
            token=self.identity.token,
            epoch=self.identity.epoch,
            queen_url=self.identity.url,
            correlation_id=correlation,
        )
