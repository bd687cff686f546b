"""Start a queen who stays when the keeper leaves, and stop the one who runs."""

import os
import re
import subprocess
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from rbee_keeper import exit_codes
from rbee_keeper.queen_finder import FoundQueen, find_queen, until_gone
from rbee_keeper.queen_lifecycle import SHE_IS_LEAVING, spawn_lock, wait_for_her_end
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.errors import (
    AlreadyExistsError,
    NoCapacityError,
    QueenLostError,
    RbeeError,
    RequestTimeoutError,
    error_from_body,
)
from rbee_shared.narration import Narration
from rbee_shared.programs import program_argv

_POLL_S = 0.05
_LAST_WORDS_BYTES = 4096
_SAID_ERROR = re.compile(r"error: (?P<message>.*) \((?P<code>[A-Z_]+)\)(?:\n +next: (?P<hint>.*))?")


async def start_queen(settings: KeeperSettings, screen: Screen) -> int:
    """Start her and print her URL; one who stands already is fine.

    Raises:
        RbeeError: why she does not start.
    """
    async with anyio.create_task_group() as group:
        group.start_soon(screen.watch_silence)
        await anyio.to_thread.run_sync(settings.home.ensure)
        async with spawn_lock(settings, screen):
            await _start(settings, screen)
        group.cancel_scope.cancel()
    return exit_codes.DONE


async def _start(settings: KeeperSettings, screen: Screen) -> None:
    found = await find_queen(settings)
    if found is not None and found.shutting_down:
        screen.narrator.tell("wait", SHE_IS_LEAVING, cute="⏳")
        await wait_for_her_end(found, settings, screen)
        found = None
    if found is None:
        screen.wait_for("the queen to wake up")
        found = await _spawn(settings)
        screen.narrator.tell("start", f"queen is awake on {found.url}; `rbee-keeper queen stop` ends her", cute="👑")
    elif found.ephemeral:
        raise AlreadyExistsError(
            "a queen that goes when its command ends is awake right now",
            hint="Run this again when that command has ended.",
        )
    else:
        screen.narrator.tell("start", f"queen is already awake on {found.url}", cute="👑")
    screen.result(found.url)


async def _spawn(settings: KeeperSettings) -> FoundQueen:
    log = settings.home.logs / "queen-rbee.out"
    argv = [*program_argv("queen-rbee"), "daemon", "--port", str(settings.queen_port)]
    # not in a thread: Ctrl+C cancels this very task, which no scope shields, and her process would be lost
    process, begins_at = _detached(argv, log)
    found = None
    try:
        with anyio.move_on_after(settings.clocks.daemon_start_s):
            while (found := await find_queen(settings)) is None and process.poll() is None:  # noqa: ASYNC110 - asked over HTTP
                await anyio.sleep(_POLL_S)
    finally:
        if found is None and process.poll() is None:  # Ctrl+C, or she hangs: a queen that never answered is not left
            process.terminate()
    if found is not None:
        return found
    if process.returncode is not None:
        raise await anyio.to_thread.run_sync(_why_it_died, process.returncode, log, begins_at)
    raise RequestTimeoutError(
        f"the queen (pid {process.pid}) does not answer after {settings.clocks.daemon_start_s:.0f} s",
        hint=f"Look into {log} and {settings.home.logs / 'queen-rbee.log'}.",
    )


def _detached(argv: list[str], log: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """A process that outlives this one and its terminal; where its output begins in `log`."""
    with log.open("ab") as output:
        begins_at = output.tell()
        process = subprocess.Popen(  # noqa: S603 - our own program
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    return process, begins_at


def _why_it_died(returncode: int, log: Path, begins_at: int) -> RbeeError:
    """Its own error, as it printed it for its operator."""
    with log.open("rb") as file:
        file.seek(max(begins_at, os.fstat(file.fileno()).st_size - _LAST_WORDS_BYTES))
        words = file.read().decode(errors="replace")
    if said := _SAID_ERROR.search(words):
        return error_from_body(said.groupdict())
    return NoCapacityError(f"the queen died at start-up (exit {returncode})", hint=f"Its last words are in {log}.")


async def stop_queen(settings: KeeperSettings, screen: Screen) -> int:
    """Stop her, show what the cluster says meanwhile, and wait until she is gone.

    Raises:
        RbeeError: she may not be stopped with this token, or does not go.
    """
    found = await find_queen(settings)
    if found is None:
        screen.result("queen is not running")
        return exit_codes.DONE
    async with anyio.create_task_group() as group:
        group.start_soon(screen.watch_silence)
        await group.start(_show_last_words, found, settings, screen)
        await _stop(found, settings, screen)
        group.cancel_scope.cancel()
    screen.result("queen is stopped")
    return exit_codes.DONE


async def _stop(found: FoundQueen, settings: KeeperSettings, screen: Screen) -> None:
    screen.wait_for("the queen to shut down")
    if not found.shutting_down:
        screen.narrator.tell("shutdown", "asking queen to cascade shutdown", cute="🌙")
        try:
            await found.steering_api(settings).shutdown()
        except QueenLostError:
            screen.narrator.tell("shutdown", "she was going already")
    if not await until_gone(found, settings.clocks.keeper_drain_s):
        pid = f" (pid {found.process.pid})" if found.process else ""
        raise RequestTimeoutError(
            f"the queen{pid} has not gone within {settings.clocks.keeper_drain_s:.0f} s",
            hint=f"End her with `kill {found.process.pid}`." if found.process else None,
        )


async def _show_last_words(
    found: FoundQueen,
    settings: KeeperSettings,
    screen: Screen,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """What the cluster says while it shuts down; without it she is stopped all the same."""
    listening = False
    try:
        async with found.api(settings).hold() as hold:
            listening = True
            task_status.started()
            async for event in hold.events:
                if event.type == "narration":
                    screen.say(Narration.from_dict(event.data))
    except RbeeError:
        if not listening:
            task_status.started()
