"""What every local command needs around its work: a screen, the event loop, the node, signals, an exit status."""

import gc
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import typer
from anyio.abc import TaskStatus
from pydantic import ValidationError

from rbee_hive.local.node import Node
from rbee_hive.local.screen import Screen
from rbee_hive.settings import HiveSettings
from rbee_shared.auth import read_token
from rbee_shared.clocks import Clocks
from rbee_shared.config_file import read_config
from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.faults import invalid_request
from rbee_shared.error_groups import sole_error
from rbee_shared.errors import NodeUnreachableError, RbeeError
from rbee_shared.exit_codes import after_signal, of_error
from rbee_shared.ids import new_correlation_id
from rbee_shared.narration import correlation_id
from rbee_shared.paths import Home
from rbee_shared.run_file import read_run_file
from rbee_shared.settings import load_settings

if TYPE_CHECKING:
    from rbee_hive.local.hive_api import HiveApi

_PROGRAM = "rbee-hive"
T = TypeVar("T")
WireT = TypeVar("WireT", bound=Wire)


@dataclass(frozen=True)
class Session:
    """One command's run."""

    home: Home
    settings: HiveSettings
    clocks: Clocks
    screen: Screen

    @property
    def node_name(self) -> str:
        return self.settings.name

    def read_token(self) -> str:
        """The token that a hive of this home wants, unless the queen that started it has given it another. Blocking."""
        return read_token(self.settings.token_file or self.home.token)

    def on_node(self, ask: Callable[[Node], Awaitable[T]], *, waiting_for: str) -> T:
        """What `ask` gets from this node, through the hive that runs or from the files."""

        async def work() -> T:
            async with self._node() as node:
                return await ask(node)

        return self.run(work, waiting_for=waiting_for)

    def on_hive(self, ask: "Callable[[HiveApi], Awaitable[T]]", *, waiting_for: str) -> T:
        """What `ask` gets from the hive that runs.

        Raises:
            NodeUnreachableError: none does.
        """

        async def work() -> T:
            async with self._hive() as hive:
                if hive is None:
                    raise NodeUnreachableError(
                        f"no hive runs here (home {self.home.root})", hint="Start one: `rbee-hive daemon`."
                    )
                return await ask(hive)

        return self.run(work, waiting_for=waiting_for)

    def run(self, work: Callable[[], Awaitable[T]], *, waiting_for: str) -> T:
        """Run `work` in an event loop; a signal cancels it and ends the command."""

        async def main() -> T:
            gc.freeze()  # `main` of the program turned the collector off while libraries were loaded
            gc.enable()
            correlation_id.set(new_correlation_id())
            self.screen.wait_for(waiting_for)
            return await self._interruptible(work)

        try:
            return anyio.run(main)
        finally:
            self.screen.settle()

    @asynccontextmanager
    async def _node(self) -> AsyncGenerator[Node]:
        async with self._hive() as hive:
            if hive is not None:
                yield hive
                return
            from rbee_hive.local.local_files import LocalFiles  # noqa: PLC0415 - a command needs this or HTTP, never both

            async with LocalFiles.open(self.home, self.settings, self.clocks, self.screen.narrator) as files:
                yield files

    @asynccontextmanager
    async def _hive(self) -> "AsyncGenerator[HiveApi | None]":
        """The hive that runs on this home and machine; a run file that a killed one left is not believed."""
        running = await anyio.to_thread.run_sync(read_run_file, self.home.run_file(_PROGRAM))
        if running is None:
            yield None
            return
        from rbee_hive.local.hive_api import HiveApi  # noqa: PLC0415 - as above

        token = await anyio.to_thread.run_sync(self.read_token)
        async with HiveApi.open(running, token, self.clocks) as hive:
            yield hive

    async def _interruptible(self, work: Callable[[], Awaitable[T]]) -> T:
        interruption = _Interruption(self.screen)
        outcome: list[T] = []
        try:
            async with anyio.create_task_group() as group:
                await group.start(interruption.watch)
                group.start_soon(self.screen.watch_silence, self.clocks.silence_s)
                with interruption.scope:
                    outcome.append(await work())
                group.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if interruption.number is None:
                raise sole_error(group) from None
        if not outcome:
            raise typer.Exit(after_signal(interruption.number or signal.SIGINT))
        return outcome[0]


@dataclass
class _Interruption:
    """Turns Ctrl+C, TERM and a closed terminal into a cancellation of `scope`; a second Ctrl+C leaves at once."""

    screen: Screen
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    number: int | None = None

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if self.number is not None:
                    os._exit(after_signal(number))
                self.number = number
                self.screen.narrator.tell("interrupt", "interrupted", cute="✋", level="warning")
                self.scope.cancel()


@contextmanager
def session(*, json: bool = False) -> Generator[Session]:
    """A command's body: an error in it is shown, and becomes the exit status."""
    screen = Screen(wants_json=json)
    try:
        yield _prepared(screen)
    except RbeeError as error:
        screen.complain(error)
        raise typer.Exit(of_error(error.code)) from None
    except (KeyboardInterrupt, typer.Abort):  # outside the event loop: at a question, while libraries load
        raise typer.Exit(after_signal(signal.SIGINT)) from None


def wire(kind: type[WireT], /, **fields: object) -> WireT:
    """A request made of a command's arguments; one that is None was not given.

    Raises:
        InvalidRequestError: with every fault.
    """
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise invalid_request(error) from None


def _prepared(screen: Screen) -> Session:
    home = Home.from_environment()
    clocks = Clocks.load(read_config(home.config).get("clocks", {}))
    settings = load_settings(HiveSettings, flags={}, config=home.config)
    return Session(home, settings, clocks, screen)
