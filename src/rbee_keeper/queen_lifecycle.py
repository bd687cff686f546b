"""Who found the queen asleep puts her back to sleep: find, wake, hold, and let go of her, as a block.

An ephemeral queen is held by an open connection, never by this process's life: two keepers may share her, and she goes
when the last has left. Spawning is serialised by a lock; who loses adopts the other's queen. A standing queen is only
talked to.
"""

import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from rbee_keeper.interrupts import Guard
from rbee_keeper.queen_finder import FoundQueen, find_queen, until_gone
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.errors import QueenLostError, RbeeError, ShuttingDownError
from rbee_shared.file_lock import try_lock
from rbee_shared.narration import Narration, correlation_id
from rbee_shared.queen_api import Hold
from rbee_shared.units import format_seconds
from rbee_shared.version import __version__

if TYPE_CHECKING:
    from rbee_shared.child import Child
    from rbee_shared.child_voice import Listening

_LOG = logging.getLogger("rbee.keeper")
SHE_IS_LEAVING = "queen is shutting down; waking a new one when she is gone"
_LOCK_POLL_S = 0.05
_ATTEMPTS = 5
_STILL_BUSY_S = 2.0
_STILL_BUSY_POLL_S = 0.1
_TERM_GRACE_S = 5.0
_DEATH_SEEN_S = 1.0


@dataclass
class AwakeQueen:
    """A queen that answers, for the length of the block. `child`: this keeper started her."""

    found: FoundQueen
    child: "Child | None" = None
    hold: Hold | None = None
    is_leaving: bool = False
    said_goodbye: anyio.Event = field(default_factory=anyio.Event)

    async def post_mortem(self, error: RbeeError) -> RbeeError:
        """Add how she died, where this keeper can know it."""
        if not isinstance(error, QueenLostError) or self.child is None:
            return error
        from rbee_shared.child import describe_exit  # noqa: PLC0415 - loaded already: she was spawned by it

        with anyio.move_on_after(_DEATH_SEEN_S):
            how = describe_exit(await self.child.wait_exit())
            return QueenLostError(f"{error.message} ({how})", hint=error.hint, details=error.details)
        return error


@asynccontextmanager
async def awake_queen(
    settings: KeeperSettings, screen: Screen, guard: Guard, before_waking: Callable[[], None]
) -> AsyncGenerator[AwakeQueen]:
    """A queen for the length of the block: found, or woken for it and put back to sleep after it.

    Args:
        guard: stands around every wait that may be cut short; her process and the hold on her stay outside of it.
        before_waking: may refuse to wake her, by raising.

    Raises:
        RbeeError: none is at the URL that was named, or she would not wake.
    """
    async with AsyncExitStack() as stack:
        awakening = _Awakening(stack, settings, screen, guard, before_waking)
        queen = await awakening.find_or_wake()
        screen.narrator.tell("connected", "connected to queen's event stream", cute="🔗")
        yield queen


@dataclass(frozen=True)
class _Awakening:
    """The way to a queen. What must be undone afterwards is put on `stack` at once."""

    stack: AsyncExitStack
    settings: KeeperSettings
    screen: Screen
    guard: Guard
    before_waking: Callable[[], None]

    async def find_or_wake(self) -> AwakeQueen:
        self.screen.wait_for("the queen")
        for _ in range(_ATTEMPTS):
            with self.guard():
                found = await find_queen(self.settings)
            try:
                return await (self._wake() if found is None else self._adopt(found))
            except (ShuttingDownError, QueenLostError) as error:
                with self.guard():
                    found = found or await find_queen(self.settings)
                    if found is None or self.settings.queen_url is not None:
                        raise
                    if isinstance(error, ShuttingDownError):
                        self.screen.narrator.tell("wait", SHE_IS_LEAVING, cute="⏳")
                        await wait_for_her_end(found, self.settings, self.screen)
        raise ShuttingDownError("the queen was on her way out each time she was asked")

    async def _wake(self) -> AwakeQueen:
        """Start her under the spawn lock; adopt her if somebody else was faster."""
        with self.guard():
            await anyio.to_thread.run_sync(self.before_waking)  # loads libraries: signals are heard meanwhile
            await anyio.to_thread.run_sync(self.settings.home.ensure)
        async with spawn_lock(self.settings, self.screen, self.guard):
            with self.guard():
                found = await find_queen(self.settings)
            return await (self._spawn() if found is None else self._adopt(found))

    async def _adopt(self, found: FoundQueen, child: "Child | None" = None) -> AwakeQueen:
        """Talk to a queen that is there; hold her if she would go without it."""
        if found.shutting_down:
            raise ShuttingDownError(f"the queen at {found.url} is shutting down")
        queen = AwakeQueen(found, child)
        if found.ephemeral:
            # not cut short: from here on she is let go of in the proper way
            with anyio.move_on_after(self.settings.clocks.control_call_s):
                queen.hold = await self.stack.enter_async_context(found.api(self.settings).hold())
            if queen.hold is None:
                raise QueenLostError(f"the queen at {found.url} gives no hold")
            group = await self.stack.enter_async_context(_background())  # ends before the hold's stream is closed
            group.start_soon(_listen, queen, queen.hold, self.screen)
            self.stack.push_async_callback(_let_go, queen, self.settings, self.screen)
        return queen

    async def _spawn(self) -> AwakeQueen:
        from rbee_shared.child import Command, running  # noqa: PLC0415 - loads psutil; only who wakes her needs it
        from rbee_shared.handshake import Handshake  # noqa: PLC0415
        from rbee_shared.programs import program_argv  # noqa: PLC0415

        port = self.settings.queen_port
        where = f"on :{port}" if port else "on a free port"
        self.screen.narrator.tell("wake", f"queen is asleep, waking her {where}", cute="🐝")
        self.screen.wait_for("the queen to wake up")
        began_s = anyio.current_time()
        argv = [*program_argv("queen-rbee"), "daemon", "--parent", "stdin", "--port", str(port)]
        command = Command(argv, stderr=self.settings.home.logs / "queen-rbee.stderr")
        handshake = Handshake.from_here(ephemeral=True, correlation_id=correlation_id.get())
        children: list[Child] = []

        def hear(narration: Narration) -> None:
            """What she says before she can be connected to; afterwards it comes by her streams."""
            if children and children[0].listening is None:
                self.screen.say(narration)

        child = await self.stack.enter_async_context(running(command, handshake, hear, stop_grace_s=None))
        children.append(child)
        queen = await self._adopt(_born(await self._listening(child)), child)
        took = format_seconds(anyio.current_time() - began_s)
        self.screen.narrator.tell("awake", f"queen is awake and healthy ({took})", cute="👑")
        return queen

    async def _listening(self, child: "Child") -> "Listening":
        """Wait until she listens. Cut short before that, nobody can be holding her yet: she is ended here."""
        try:
            with self.guard():
                return await child.wait_listening(self.settings.clocks.daemon_start_s)
        finally:
            if child.listening is None:
                with anyio.CancelScope(shield=True):  # bounded: TERM, then KILL
                    await child.terminate(_TERM_GRACE_S)
        raise AssertionError("the guard raises when it cuts")


def _born(listening: "Listening") -> FoundQueen:
    return FoundQueen(
        url=listening.url,
        instance=listening.instance,
        ephemeral=True,
        shutting_down=False,
        version=__version__,
        process=None,
        on_loopback=True,
    )


@asynccontextmanager
async def spawn_lock(settings: KeeperSettings, screen: Screen, guard: Guard = nullcontext) -> AsyncGenerator[None]:
    """One command at a time starts a queen. Who holds the lock is doing that, which is bounded."""
    path = settings.home.lock_file("queen.spawn")
    lock = None
    with guard(), anyio.move_on_after(settings.clocks.daemon_start_s + settings.clocks.keeper_drain_s):
        while (lock := try_lock(path)) is None:
            screen.wait_for("another command that is waking the queen")
            await anyio.sleep(_LOCK_POLL_S)
    if lock is None:
        raise QueenLostError(f"another command has been waking the queen for too long; it holds {path}")
    try:
        yield
    finally:
        os.close(lock)


async def wait_for_her_end(found: FoundQueen, settings: KeeperSettings, screen: Screen) -> None:
    """Wait until she is gone.

    Raises:
        ShuttingDownError: she takes longer than she may.
    """
    screen.wait_for("the queen to shut down")
    if not await until_gone(found, settings.clocks.keeper_drain_s):
        raise ShuttingDownError(f"the queen at {found.url} is still shutting down")


@asynccontextmanager
async def _background() -> AsyncGenerator[anyio.abc.TaskGroup]:
    async with anyio.create_task_group() as group:
        try:
            yield group
        finally:
            group.cancel_scope.cancel()


async def _listen(queen: AwakeQueen, hold: Hold, screen: Screen) -> None:
    """Show what the cluster says while it shuts down."""
    try:
        async for event in hold.events:
            if event.type == "narration":
                screen.say(Narration.from_dict(event.data))
    except RbeeError as error:
        _LOG.debug("the hold broke: %s", error)  # who still needs something of her finds out by asking
    finally:
        queen.said_goodbye.set()


async def _let_go(queen: AwakeQueen, settings: KeeperSettings, screen: Screen) -> None:
    """End our hold; if it was the last one, see her go, and insist if this keeper started her."""
    screen.wait_for("the queen to shut down")
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(settings.clocks.keeper_drain_s) as patience:
            if not await _ask_to_go(queen, settings, screen):
                return
            await queen.said_goodbye.wait()
            if queen.child is not None:
                await queen.child.wait_exit()
            else:
                await until_gone(queen.found, settings.clocks.keeper_drain_s)
        if patience.cancelled_caught and queen.child is not None:
            screen.narrator.tell("insist", "queen does not go: ending her process", level="warning")
            await queen.child.terminate(_TERM_GRACE_S)


async def _ask_to_go(queen: AwakeQueen, settings: KeeperSettings, screen: Screen) -> bool:
    """Whether she is on her way out now."""
    if queen.is_leaving or queen.said_goodbye.is_set():
        return True
    assert queen.hold is not None
    screen.narrator.tell("shutdown", "asking queen to cascade shutdown", cute="🌙")
    give_up_at_s = anyio.current_time() + _STILL_BUSY_S
    try:
        while True:
            answer = await queen.found.steering_api(settings).shutdown(hold_id=queen.hold.hold_id)
            if answer.get("status") != "held":
                return True
            if answer.get("holds") or anyio.current_time() > give_up_at_s:
                screen.narrator.tell("leave", "others still use the queen; she goes when they are done", cute="👋")
                return False
            await anyio.sleep(_STILL_BUSY_POLL_S)  # the task that we hung up on is still being cancelled
    except QueenLostError:
        return True
    except RbeeError as error:
        # her hold ends when the connection closes, and that is enough, also for a queen of another home
        screen.narrator.tell("leave", f"leaving the queen to herself: {error.message}", level="warning")
        return False
