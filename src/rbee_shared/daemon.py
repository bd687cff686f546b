"""A daemon's life: set up, one async body, and one way to stop that everything which may end it goes through.

Signals, the parent's end-of-file, a lease and `POST /shutdown` all do the same thing: they call `Stopping.request`.
What follows (which streams end first, who is told) is the daemon's own body. With a parent at the far end of a
connection, end-of-file ends nothing: it sets `hung_up`, and the body decides.

What a program has imported is no garbage: looking for some in it takes a tenth of a start and a quarter of a second of
every exit. So `main` of each program turns the collector off before it imports, and `run_daemon` sets what is there
aside, at the beginning and again at the end.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskStatus

from rbee_shared.clocks import Clocks
from rbee_shared.config_file import read_config
from rbee_shared.errors import DiskFullError, InternalError, RbeeError
from rbee_shared.handshake import Handshake, read_handshake
from rbee_shared.ids import new_instance_id
from rbee_shared.lease import Lease
from rbee_shared.logs import log_to_file, log_to_stderr
from rbee_shared.narration_hub import NarrationHub
from rbee_shared.parent import Parent
from rbee_shared.paths import Home
from rbee_shared.redaction import printable, redact

_LOG = logging.getLogger("rbee.daemon")
EXIT_FAILED = 1
_PRIVATE_UMASK = 0o077


@dataclass
class Stopping:
    """The decision that this daemon stops. The first request decides how; later ones can only make it `hurry`."""

    requested: anyio.Event = field(default_factory=anyio.Event)
    hurry: anyio.Event = field(default_factory=anyio.Event)
    reason: str = ""
    abrupt: bool = False
    cascade: bool = True
    correlation_id: str | None = None

    def request(
        self, reason: str, *, abrupt: bool = False, cascade: bool = True, correlation_id: str | None = None
    ) -> None:
        """Stop. `abrupt`: nobody is left to wait for, so running work is dropped instead of drained.

        A parent's death comes twice, as a signal and as end-of-file, in any order: hence `hurry`.
        """
        if abrupt:
            self.hurry.set()
        if not self.requested.is_set():
            _LOG.info("stopping: %s", reason)
            self.reason, self.abrupt = reason, abrupt
            self.cascade, self.correlation_id = cascade, correlation_id
            self.requested.set()

    @property
    def is_requested(self) -> bool:
        return self.requested.is_set()


@dataclass(frozen=True)
class Daemon:
    """What every daemon has from its start.

    `handshake`: what its parent has told it, if it has one. `hung_up`: the connection that it was started through is
    gone.
    """

    program: str
    home: Home
    clocks: Clocks
    hub: NarrationHub
    handshake: Handshake | None
    stopping: Stopping
    parent: Parent | None
    hung_up: anyio.Event = field(default_factory=anyio.Event)
    instance: str = field(default_factory=new_instance_id)


def run_daemon(
    program: str,
    body: Callable[[Daemon], Awaitable[None]],
    *,
    parent: Parent | None,
    logs_to_stderr: bool = False,
    use_uvloop: bool = False,
) -> int:
    """Run `body` until it returns; its exit status. Errors are told to the parent, or printed for the operator."""
    _fill_standard_descriptors()
    if parent is Parent.SSH:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by the kernel: end-of-file tells the same, and only once
    os.umask(_PRIVATE_UMASK)
    hub = NarrationHub(has_parent=parent is not None)
    try:
        home, clocks = _prepare(program, logs_to_stderr=logs_to_stderr)
        handshake = read_handshake(clocks.handshake_s) if parent is not None else None

        async def live() -> None:
            gc.freeze()
            gc.enable()
            daemon = Daemon(program, home, clocks, hub, handshake, Stopping(), parent)
            await _guarded(daemon, body)

        anyio.run(live, backend_options={"use_uvloop": use_uvloop and _has_uvloop()})
    except Exception as error:  # noqa: BLE001 - the last resort: said and logged, never swallowed
        return _report(hub, program, _as_rbee_error(program, error), has_parent=parent is not None)
    finally:
        hub.close()
        gc.freeze()
    return 0


def _fill_standard_descriptors() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed: else the next file gets that number, and our lines."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _prepare(program: str, *, logs_to_stderr: bool) -> tuple[Home, Clocks]:
    try:
        home = Home.from_environment().ensure()
        if logs_to_stderr:
            log_to_stderr()
        else:
            log_to_file(home.logs / f"{program}.log")
    except OSError as error:
        raise DiskFullError(f"cannot write below {Home.from_environment().root}: {error.strerror}") from None
    return home, Clocks.load(read_config(home.config).get("clocks", {}))


async def _guarded(daemon: Daemon, body: Callable[[Daemon], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        await group.start(_watch_signals, daemon)
        if daemon.handshake is not None:
            group.start_soon(_watch_parent, daemon, daemon.handshake)
        await body(daemon)
        group.cancel_scope.cancel()


async def _watch_signals(daemon: Daemon, *, task_status: TaskStatus[None]) -> None:
    watched = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # `nohup` has it ignored, as we do over SSH
        watched.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*watched) as signals:
        task_status.started()
        async for number in signals:
            _obey(daemon.stopping, number)


def _obey(stopping: Stopping, number: signal.Signals) -> None:
    if stopping.is_requested and number == signal.SIGINT:
        os._exit(128 + number)  # the operator insists; children follow by end-of-file and PDEATHSIG
    stopping.request(f"received {signal.Signals(number).name}")


async def _watch_parent(daemon: Daemon, handshake: Handshake) -> None:
    """An ephemeral queen's spawner holds her only like any other keeper: her holds decide, not this pipe."""
    if daemon.parent is Parent.SSH:
        await end_of_file(0)
        daemon.hung_up.set()
    elif handshake.ephemeral:
        return
    elif not handshake.parent_alive:
        daemon.stopping.request("the parent was gone before we were up", abrupt=True)
    else:
        await end_of_file(0)
        daemon.stopping.request("the parent is gone", abrupt=True)


async def end_of_file(descriptor: int) -> None:
    """Return when the other end of `descriptor` is closed; anything that comes through it is ignored.

    A socket whose peer died before it took all that we wrote is reset, and a file, which nobody holds, cannot be
    waited for: both are ends.
    """
    os.set_blocking(descriptor, False)
    while True:
        try:
            await anyio.wait_readable(descriptor)
            if not os.read(descriptor, 4096):
                return
        except BlockingIOError:
            continue
        except OSError as error:
            _LOG.info("the end of descriptor %d: %s", descriptor, error)
            return


async def watch_lease(lease: Lease, stopping: Stopping, whose: str) -> None:
    """Stop this daemon when its lease runs out."""
    await lease.expired()
    stopping.request(f"{whose} has not answered for {lease.seconds or 0:.0f} s", abrupt=True)


def _report(hub: NarrationHub, program: str, error: RbeeError, *, has_parent: bool) -> int:
    _LOG.error("%s (%s)", error.message, error.code)
    if has_parent:
        hub.announce("failed", error=error.body())
    else:
        text = f"{program}: error: {error.message} ({error.code})\n  next: {error.hint}\n"
        sys.stderr.write(redact(printable(text)))
    return EXIT_FAILED


def _as_rbee_error(program: str, error: Exception) -> RbeeError:
    """`error` itself, or the first error of a group of them."""
    first: BaseException = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, RbeeError):
        return first
    _LOG.error("%s failed", program, exc_info=error)
    return InternalError(f"{program} failed: {type(first).__name__}: {first}")


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - where it does not install, asyncio's own loop does the same, slower
    except ImportError:
        return False
    return True
