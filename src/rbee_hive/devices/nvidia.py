"""The NVIDIA cards of this node, through NVML: loaded once, shut down on leaving.

Guarantees: an answer by the deadline, whatever a card does. A card that hangs or fails is a problem told, and the
others go on; a machine without the library has no cards, which is no problem.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio

from rbee_hive.devices import nvml
from rbee_hive.devices.nvml import Driver, DriverError, NoDriverError
from rbee_hive.devices.shared_call import SharedCall
from rbee_hive.domain.devices.found_devices import Found
from rbee_hive.domain.devices.nvidia_devices import CardReading, Cards, nvidia_devices
from rbee_shared.machine_limits import Memory

_LOG = logging.getLogger("rbee.hive.nvidia")
_STOP_S = 1.0


class NvidiaCards:
    """Made by `open`. `listed`: CUDA_VISIBLE_DEVICES of the hive, which its workers inherit."""

    def __init__(self, listed: str | None) -> None:
        self._listed = listed
        self._start = SharedCall(nvml.start, "nvml-start", self._has_started)
        self._driver: Driver | None = None
        self._absent = False
        self._calls: list[SharedCall[CardReading]] = []
        self._last: dict[int, CardReading] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, listed: str | None) -> AsyncGenerator["NvidiaCards"]:
        """Nothing is loaded until somebody asks."""
        cards = cls(listed)
        try:
            yield cards
        finally:
            with anyio.CancelScope(shield=True):
                await cards._stop()

    async def read(self, ram: Memory, deadline_s: float) -> Found:
        """All that answer by the deadline, and what is wrong with the others."""
        driver, problem = await self._started(deadline_s)
        if driver is None:
            return Found(problems=problem)
        flights = [call.start() for call in self._calls]
        now: dict[int, CardReading] = {}
        problems = []
        for place, flight in enumerate(flights):
            try:
                now[place] = await flight.result(deadline_s)
            except (DriverError, TimeoutError) as error:
                problems.append(f"{self._called(place)}: {error}")
        found = nvidia_devices(Cards(driver.cards, driver.version, self._last, now), self._listed, ram)
        self._last |= now
        return Found(found.names, found.gpus, (*problems, *found.problems))

    @property
    def is_running(self) -> bool:
        """Whether there is something to read."""
        return self._driver is not None

    @property
    def is_starting(self) -> bool:
        """Whether the driver takes its time: without its persistence mode it wakes every card first."""
        return self._start.is_running

    async def wait_started(self) -> None:
        """Until it has answered at last."""
        await self._start.start().landed()

    async def _started(self, deadline_s: float) -> tuple[Driver | None, tuple[str, ...]]:
        if self._driver is not None or self._absent:
            return self._driver, ()
        try:
            return await self._start.start().result(deadline_s), ()
        except NoDriverError:
            self._absent = True
            return None, ()
        except (DriverError, TimeoutError) as error:
            return None, (f"NVIDIA: {error}",)

    def _has_started(self, driver: Driver) -> None:
        self._driver = driver
        self._calls = [SharedCall(partial(nvml.read_card, at), f"nvml-{at}") for at in range(driver.cards)]

    def _called(self, place: int) -> str:
        known = self._last.get(place)
        return f"GPU {place} ({known.name})" if known else f"GPU {place}"

    async def _stop(self) -> None:
        if self._driver is None or any(call.is_running for call in self._calls):
            return  # shutting NVML down under a call that hangs would hang too; the end of the process does it
        try:
            await SharedCall(nvml.stop, "nvml-stop").start().result(anyio.current_time() + _STOP_S)
        except (DriverError, TimeoutError) as error:
            _LOG.warning("NVML does not shut down: %s", error)
