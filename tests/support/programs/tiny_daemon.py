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


async def outlives(daemon: Daemon) -> None:
    """Tells of the end of its parent's connection, and goes on until it is asked to end."""
    _up(daemon)
    async with anyio.create_task_group() as group:
        group.start_soon(_tell_of_the_end, daemon)
        await daemon.stopping.requested.wait()
        group.cancel_scope.cancel()


async def _tell_of_the_end(daemon: Daemon) -> None:
    await daemon.hung_up.wait()
    Narrator("hive", daemon.hub.publish).tell("hung_up", "hung up")


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
    each.__name__: each for each in (serves, outlives, clings, blocks, refuses, breaks, ends)
}

if __name__ == "__main__":
    die_with_parent(signal.SIGKILL)
    sys.exit(run_daemon("tiny", _BODIES[sys.argv[1]], parent=parent_of(sys.argv[1:])))
