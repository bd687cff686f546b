"""What every command needs around its work: a screen, one correlation id, the event loop, and an exit status."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from rbee_keeper.exit_codes import exit_code
from rbee_keeper.output import Output
from rbee_keeper.render import Screen, Style
from rbee_shared.errors import InternalError, RbeeError
from rbee_shared.ids import new_correlation_id
from rbee_shared.narration import correlation_id

if TYPE_CHECKING:
    from rbee_keeper.settings import KeeperSettings

P = ParamSpec("P")
_STDOUT, _STDERR = 1, 2
_DEFAULT_SILENCE_S = 1.5


def screen_for(settings: "KeeperSettings | None", style: Style) -> Screen:
    """A screen on this process's stdout and stderr."""
    silence_s = settings.clocks.silence_s if settings else _DEFAULT_SILENCE_S
    return Screen(Output(_STDOUT), Output(_STDERR), style, silence_s=silence_s)


def complain(error: RbeeError, style: Style) -> int:
    """Show an error that came before there was anything else to show; the exit status for it."""
    screen_for(None, style).complain(error, as_event=True)
    return exit_code(error.code, answer_begun=False)


def spoken(
    work: "Callable[Concatenate[KeeperSettings, Screen, P], Awaitable[int]]",
    settings: "KeeperSettings",
    screen: Screen,
    *args: P.args,
    **kwargs: P.kwargs,
) -> int:
    """Run `work` in an event loop; its exit status, or that of the error it raised, which is shown."""
    import anyio  # noqa: PLC0415 - `--help` does without it

    async def main() -> int:
        correlation_id.set(new_correlation_id())
        try:
            return await work(settings, screen, *args, **kwargs)
        except RbeeError as error:
            return _shown(error)
        except BaseExceptionGroup as group:
            return _shown(sole_error(group))

    def _shown(error: RbeeError) -> int:
        screen.complain(error, incomplete=screen.answer_begun, as_event=True)
        return exit_code(error.code, answer_begun=screen.answer_begun)

    return anyio.run(main)


def sole_error(group: BaseExceptionGroup[BaseException]) -> RbeeError:
    """The error for the user in a group that task groups have made around it.

    Raises:
        BaseExceptionGroup: there is a defect in it, which must not be hidden.
    """
    errors, others = group.split(RbeeError)
    if errors is None or others is not None:
        raise group
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, RbeeError) else InternalError(str(error))
