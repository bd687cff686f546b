"""A daemon with a body of three lines, for what every daemon does: `tiny_daemon.py BODY [--parent stdin|ssh]`."""

import signal
import sys
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from rbee_shared.daemon import Daemon, run_daemon
from rbee_shared.errors import ModelInvalidError
from rbee_shared.narration import Narrator
from rbee_shared.parent import parent_of
from rbee_shared.parent_death import die_with_parent


def _up(daemon: Daemon) -> None:
    Narrator("hive", daemon.hub.publish).tell("up", "tiny is up")
    daemon.hub.announce("listening", url="http://127.0.0.1:1", instance=daemon.instance)


async def serves(daemon: Daemon) -> None:
    _up(daemon)
    await daemon.stopping.requested.wait()
    how = "abruptly" if daemon.stopping.abrupt else "gently"
    Narrator("hive", daemon.hub.publish).tell("down", f"stopping {how}: {daemon.stopping.reason}")


async def counts(daemon: Daemon) -> None:
    """Tells of every hangup."""
    _up(daemon)
    narrator, seen = Narrator("hive", daemon.hub.publish), 0
    async with anyio.create_task_group() as group:
        group.start_soon(_end_when_asked, daemon, group.cancel_scope)
        while True:
            seen = await daemon.hangups.beyond(seen)
            narrator.tell("hangup", f"hung up {seen} times")


async def _end_when_asked(daemon: Daemon, scope: anyio.CancelScope) -> None:
    await daemon.stopping.requested.wait()
    scope.cancel()


async def clings(daemon: Daemon) -> None:
    """Never gets done with its drain."""
    _up(daemon)
    await daemon.stopping.requested.wait()
    Narrator("hive", daemon.hub.publish).tell("down", "draining for ever")
    await anyio.sleep_forever()


async def blocks(daemon: Daemon) -> None:
    """Stuck in a call that never comes back to the event loop: only the kernel can end it."""
    _up(daemon)
    await anyio.lowlevel.checkpoint()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    while True:
        pass


async def refuses(_: Daemon) -> None:
    raise ModelInvalidError("\x1b[31mnot a model\x1b[0m", details={"size_bytes": 0})


async def breaks(_: Daemon) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        raise LookupError("unforeseen")


async def ends(_: Daemon) -> None:
    return


_BODIES: dict[str, Callable[[Daemon], Awaitable[None]]] = {
    each.__name__: each for each in (serves, counts, clings, blocks, refuses, breaks, ends)
}

if __name__ == "__main__":
    die_with_parent(signal.SIGKILL)
    sys.exit(run_daemon("tiny", _BODIES[sys.argv[1]], parent=parent_of(sys.argv[1:])))
