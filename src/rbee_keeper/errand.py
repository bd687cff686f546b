"""What a command wants of the queen, from finding her to the exit status; signals and a closed stdout end it properly.

Who only reads wakes nobody. Who changes something wakes a queen, who goes when it is done. Who leaves something running
wants a standing queen: it would go with one that was woken for it. Who stops something is done where she sleeps.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

import anyio

from rbee_keeper import exit_codes
from rbee_keeper.audience import Audience
from rbee_keeper.interrupts import CutShortError, Interrupts
from rbee_keeper.queen_finder import FoundQueen, find_queen
from rbee_keeper.queen_lifecycle import AwakeQueen
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.clocks import Clocks
from rbee_shared.errors import QueenLostError, RbeeError, ShuttingDownError
from rbee_shared.steering_api import SteeringApi

_HER_SOURCE = "queen-rbee"
_ASLEEP = "queen is asleep (start a standing one with `rbee-keeper queen start`)"


class Need(Enum):
    """Which queen a command wants."""

    READS = "one that is awake"
    CHANGES = "one that is awake or woken"
    LEAVES_RUNNING = "one that stands"
    STOPS = "one that is awake; else it is done"


@dataclass(frozen=True)
class Errand:
    """`business` returns the exit status; an error in it is shown, and becomes one."""

    need: Need
    business: Callable[[SteeringApi, Screen], Awaitable[int]]


async def run_errand(settings: KeeperSettings, screen: Screen, errand: Errand) -> int:
    """The exit status. A queen that was woken for it is asleep again when this returns."""
    interrupts = Interrupts(None)
    screen.on_output_lost(interrupts.output_lost)
    run = _Run(settings, screen, interrupts, errand)
    async with anyio.create_task_group() as group:
        group.start_soon(interrupts.watch)
        group.start_soon(screen.watch_silence)
        await run.to_the_end()
        group.cancel_scope.cancel()
    if interrupts.output_error is not None:
        screen.complain(interrupts.output_error)
    return interrupts.exit_status or run.exit_status


def is_about_the_queen(error: RbeeError) -> bool:
    """Whether it is she herself that fails, not a node or worker of which she tells."""
    return isinstance(error, QueenLostError | ShuttingDownError) and error.source in {None, _HER_SOURCE}


class _Run:
    def __init__(self, settings: KeeperSettings, screen: Screen, interrupts: Interrupts, errand: Errand) -> None:
        self._settings = settings
        self._screen = screen
        self._interrupts = interrupts
        self._errand = errand
        self.exit_status = exit_codes.DONE

    async def to_the_end(self) -> None:
        try:
            if self._errand.need is Need.CHANGES:
                audience = Audience(self._settings, self._screen, self._interrupts)
                await audience.hold(self._with_her, lambda: None)
            else:
                await self._with_who_is_awake()
        except* CutShortError:
            self._tell_why_cut()

    async def _with_who_is_awake(self) -> None:
        self._screen.wait_for("the queen")
        with self._interrupts.guard():
            found = await find_queen(self._settings)
        if self._errand.need is Need.LEAVES_RUNNING:
            found = _standing(found)
        if found is None:
            self._do_without_her()
            return
        try:
            await self._attend(found)
        except RbeeError as error:
            self._fail(error)

    async def _with_her(self, queen: AwakeQueen) -> None:
        try:
            await self._attend(queen.found)
        except CutShortError:
            self._tell_why_cut()
        except RbeeError as error:
            if isinstance(error, ShuttingDownError) and is_about_the_queen(error):
                raise
            self._fail(await queen.post_mortem(error))

    async def _attend(self, found: FoundQueen) -> None:
        with self._interrupts.guard():
            self.exit_status = await self._errand.business(found.steering_api(self._settings), self._screen)
        self._screen.wait_for(None)

    def _do_without_her(self) -> None:
        stops = self._errand.need is Need.STOPS
        text = _nothing_runs(self._settings.clocks) if stops else _ASLEEP
        self._screen.present({"queen": None}, lambda _: text)
        self.exit_status = exit_codes.DONE if stops else exit_codes.UNREACHABLE

    def _fail(self, error: RbeeError) -> None:
        self._screen.complain(error, as_event=True)
        self.exit_status = exit_codes.exit_code(error.code, answer_begun=False)

    def _tell_why_cut(self) -> None:
        if self._interrupts.signal is not None:
            self._screen.narrator.tell("interrupt", "interrupted", cute="✋", level="warning")


def _nothing_runs(clocks: Clocks) -> str:
    woken_s, adopted_s = (
        lease_s + clocks.hive_drain_s for lease_s in (clocks.hive_lease_s, clocks.adopted_hive_lease_s)
    )
    return (
        "queen is asleep: no hive and no worker of hers runs; if she was killed, "
        f"hers end by themselves within {woken_s:.0f} s ({adopted_s:.0f} s where she had adopted them)"
    )


def _standing(found: FoundQueen | None) -> FoundQueen:
    hint = "Start one that stays: `rbee-keeper queen start`."
    if found is None:
        raise QueenLostError(
            "the queen is asleep, and what this starts would go with one that is woken for it", hint=hint
        )
    if found.ephemeral:
        raise QueenLostError(
            "the queen that is awake goes when its command ends, and what this starts with her", hint=hint
        )
    return found
