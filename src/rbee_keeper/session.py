"""What every command needs around its work: a screen, one correlation id, the event loop, and an exit status."""

import gc
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

import typer

from rbee_keeper.exit_codes import after_signal, exit_code
from rbee_keeper.output import Output
from rbee_keeper.render import Form, Screen, Style
from rbee_keeper.settings import KeeperSettings
from rbee_shared.error_groups import sole_error
from rbee_shared.errors import RbeeError
from rbee_shared.ids import new_correlation_id
from rbee_shared.narration import correlation_id

_STDOUT, _STDERR = 1, 2
_DEFAULT_SILENCE_S = 1.5


class Runner(Protocol):
    """Runs `work(settings, screen, *args)` in an event loop and ends the command with the status that it returns."""

    def __call__(self, work: Callable[..., Awaitable[int]], settings: KeeperSettings, *args: Any) -> None: ...


@contextmanager
def command(*, quiet: bool = False, json: bool = False, events: bool = False) -> Generator[Runner]:
    """A command's body: an error in it is shown, and becomes the exit status.

    Args:
        json: stdout gets one JSON document.
        events: it gets every event as a line of JSON.
    """
    style = Style(quiet, Form.EVENTS if events else Form.DOCUMENT if json else Form.TEXT)
    screens = [_screen(style, _DEFAULT_SILENCE_S)]

    def run(work: Callable[..., Awaitable[int]], settings: KeeperSettings, *args: Any) -> None:
        screens.append(_screen(style, settings.clocks.silence_s))
        raise typer.Exit(_in_event_loop(lambda: work(settings, screens[-1], *args)))

    try:
        yield run
    except RbeeError as error:
        screen = screens[-1]
        screen.complain(error, incomplete=screen.answer_begun, as_event=True)
        raise typer.Exit(exit_code(error.code, answer_begun=screen.answer_begun)) from None
    except typer.Abort:  # Ctrl+C or Ctrl+D at a question
        raise typer.Exit(after_signal(signal.SIGINT)) from None


def _screen(style: Style, silence_s: float) -> Screen:
    return Screen(Output(_STDOUT), Output(_STDERR), style, silence_s=silence_s)


def _in_event_loop(work: Callable[[], Awaitable[int]]) -> int:
    import anyio  # noqa: PLC0415 - what is wrong with a command line is told without it

    async def main() -> int:
        gc.freeze()
        gc.enable()
        correlation_id.set(new_correlation_id())
        return await work()

    try:
        return anyio.run(main)
    except BaseExceptionGroup as group:
        raise sole_error(group) from None
