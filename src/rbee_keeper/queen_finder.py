"""Where is the queen? `--queen-url`, `RBEE_QUEEN_URL`, her run file, then her usual port. Looking never wakes her."""

from dataclasses import dataclass

import anyio
import anyio.to_thread

from rbee_keeper.settings import KeeperSettings
from rbee_shared.errors import BadPeerError, PortInUseError, QueenLostError
from rbee_shared.lean_http import SilentPeerError, parse_url
from rbee_shared.queen_api import QueenApi
from rbee_shared.run_file import RunningDaemon, claimed_daemon
from rbee_shared.steering_api import SteeringApi

RUN_FILE = "queen-rbee"
_PROBE_S = 2.0
_GONE_POLL_S = 0.05


@dataclass(frozen=True)
class FoundQueen:
    """A queen that answered. `process` is known when her run file led to her; `on_loopback` opens her task routes."""

    url: str
    instance: str
    ephemeral: bool
    shutting_down: bool
    version: str
    process: RunningDaemon | None
    on_loopback: bool

    def api(self, settings: KeeperSettings, *, names_a_file: bool = False) -> QueenApi:
        """For tasks: with the token only where it is needed. Who shows it may name any model file of its machine."""
        token = settings.task_token(needed=names_a_file or not self.on_loopback)
        return QueenApi(self.url, token, clocks=settings.clocks)

    def steering_api(self, settings: KeeperSettings) -> SteeringApi:
        """For what always wants the token."""
        return SteeringApi(self.url, settings.token(), clocks=settings.clocks)


async def find_queen(settings: KeeperSettings) -> FoundQueen | None:
    """The queen that answers, or None when she is asleep.

    Raises:
        QueenLostError: none answers at the URL that was named, or one that runs does not answer.
        PortInUseError: her port is held by something that is no queen.
        BadPeerError: what answers at the URL that was named is no queen.
    """
    if settings.queen_url is not None:
        return await _ask(settings.queen_url, None)
    # read right here: starting a thread takes longer than these 100 bytes, and a warm answer waits for it
    claimed = claimed_daemon(settings.home.run_file(RUN_FILE))
    if claimed is not None and (queen := await _by_run_file(claimed)) is not None:
        return queen
    if settings.queen_port:
        return await _by_port(settings.queen_port)
    return None


async def _by_run_file(claimed: RunningDaemon) -> FoundQueen | None:
    """She who wrote the file, if it is she who answers: a killed queen leaves the file, and her port to anybody."""
    try:
        queen = await _ask(claimed.url, claimed)
    except SilentPeerError:
        if not await _is_alive(claimed):
            return None
        raise QueenLostError(
            f"a queen runs here (pid {claimed.pid}) and does not answer at {claimed.url}",
            hint=f"Look into ~/.rbee/logs/queen-rbee.log; end her with `kill {claimed.pid}` if she hangs.",
        ) from None
    except (QueenLostError, BadPeerError):
        return None
    return queen if queen.instance == claimed.instance else None


async def _by_port(port: int) -> FoundQueen | None:
    url = f"http://127.0.0.1:{port}"
    try:
        return await _ask(url, None)
    except (SilentPeerError, BadPeerError):
        raise await port_in_use(port) from None
    except QueenLostError:
        return None


async def port_in_use(port: int) -> PortInUseError:
    """The error that names who holds the queen's port."""
    from rbee_shared.port_holder import port_holder  # noqa: PLC0415 - loads psutil, and only a failure needs it

    holder = await anyio.to_thread.run_sync(port_holder, port) or "another program (of another user)"
    return PortInUseError(
        f"port {port} is held by {holder}, which is not a queen",
        hint="Stop that program, or give the queen another port: RBEE_QUEEN_PORT=8090 (0 lets the system choose).",
    )


async def _ask(url: str, process: RunningDaemon | None) -> FoundQueen:
    facts = await QueenApi(url).health(within_s=_PROBE_S)
    return FoundQueen(
        url=url,
        instance=str(facts.get("instance", "")),
        ephemeral=facts.get("ephemeral") is True,
        shutting_down=facts.get("status") == "shutting_down",
        version=str(facts.get("version", "?")),
        process=process,
        on_loopback=parse_url(url).is_loopback,
    )


async def until_gone(queen: FoundQueen, timeout_s: float) -> bool:
    """Wait until that queen's process has ended (or, where that is not known, until she no longer answers).

    Another program's child: only asking tells, hence the polling.
    """
    api = QueenApi(queen.url)
    with anyio.move_on_after(timeout_s):
        while await (_is_alive(queen.process) if queen.process else api.is_there(queen.instance)):  # noqa: ASYNC110
            await anyio.sleep(_GONE_POLL_S)
        return True
    return False


async def _is_alive(process: RunningDaemon) -> bool:
    return await anyio.to_thread.run_sync(lambda: process.alive)
