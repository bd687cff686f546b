"""A blocking call into something that may hang: a driver, a sensor, a program of the system.

Each runs in a daemon thread of its own, one at a time, and whoever asks meanwhile shares the answer. So a hang costs
one thread for ever, never the pool that everything else runs in, and it does not keep the process from ending.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Generic, TypeVar

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token

T = TypeVar("T")

PATIENCE_S = 2.0


class Flight(Generic[T]):
    """One run of the call."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self._done = anyio.Event()
        self._outcome: Callable[[], T] | None = None

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    async def result(self, deadline_s: float) -> T:
        """What the call returned, or raised. `deadline_s`: on the event loop's clock.

        Raises:
            TimeoutError: it has not come back by then, or not within 2 s of its beginning: whoever asks after a
                call that hangs waits no more.
        """
        until_s = min(deadline_s, self.began_s + PATIENCE_S)
        with anyio.CancelScope(deadline=until_s):
            await self._done.wait()
        if self._outcome is None:
            raise TimeoutError(f"no answer within {until_s - self.began_s:.1f} s")
        return self._outcome()

    async def landed(self) -> None:
        """Wait until the thread is through, however long that takes."""
        await self._done.wait()

    def land(self, outcome: Callable[[], T]) -> None:
        """The thread is through: `outcome` returns what it returned, or raises what it raised."""
        self._outcome = outcome
        self._done.set()


class SharedCall(Generic[T]):
    """One blocking function. `then` gets each answer in the event loop, also one that nobody waits for any more."""

    def __init__(self, function: Callable[[], T], name: str, then: Callable[[T], None] = lambda _: None) -> None:
        self._function = function
        self._name = name
        self._then = then
        self._flight: Flight[T] | None = None

    def start(self) -> Flight[T]:
        """Begin a run, or join the one that has not come back yet."""
        if self._flight is None or self._flight.is_done:
            self._flight = Flight(anyio.current_time())
            Thread(target=self._run, args=(self._flight, current_token()), name=self._name, daemon=True).start()
        return self._flight

    @property
    def is_running(self) -> bool:
        return self._flight is not None and not self._flight.is_done

    def _run(self, flight: Flight[T], token: EventLoopToken) -> None:
        future: Future[T] = Future()
        try:
            future.set_result(self._function())
        except BaseException as error:  # noqa: BLE001 - carried over to those who wait
            future.set_exception(error)
        with suppress(RuntimeError):  # the event loop has ended meanwhile: nobody waits any more
            anyio.from_thread.run_sync(self._land, flight, future, token=token)

    def _land(self, flight: Flight[T], future: Future[T]) -> None:
        flight.land(future.result)
        if future.exception() is None:
            self._then(future.result())
