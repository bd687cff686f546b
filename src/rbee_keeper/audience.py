"""The queen for one command: woken for it where she sleeps, and another one sought where the one found is leaving."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rbee_keeper.interrupts import Interrupts
from rbee_keeper.queen_finder import find_queen
from rbee_keeper.queen_lifecycle import SHE_IS_LEAVING, AwakeQueen, awake_queen, wait_for_her_end
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.errors import ShuttingDownError

_ATTEMPTS = 3

Business = Callable[[AwakeQueen], Awaitable[None]]


@dataclass(frozen=True)
class Audience:
    """How to get her for this command."""

    settings: KeeperSettings
    screen: Screen
    interrupts: Interrupts

    async def hold(self, business: Business, before_waking: Callable[[], None]) -> None:
        """Do `business` with her; once more with a new one where it raises that she is shutting down.

        Raises:
            CutShortError, RbeeError: as `awake_queen` and `business` do; task groups may stand around it.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._once(business, before_waking)
            except* ShuttingDownError:
                if attempt == _ATTEMPTS or self.settings.queen_url is not None:
                    raise
                await self._outwait_her()
            else:
                return

    async def _once(self, business: Business, before_waking: Callable[[], None]) -> None:
        refusal: ShuttingDownError | None = None
        async with awake_queen(self.settings, self.screen, self.interrupts.guard, before_waking) as queen:
            try:
                await business(queen)
            except ShuttingDownError as error:
                refusal, queen.is_leaving = error, True
                self.screen.narrator.tell("wait", SHE_IS_LEAVING, cute="⏳")
        if refusal is not None:
            raise refusal

    async def _outwait_her(self) -> None:
        with self.interrupts.guard():
            if (found := await find_queen(self.settings)) is not None and found.shutting_down:
                await wait_for_her_end(found, self.settings, self.screen)
