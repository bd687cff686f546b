"""What every command needs that is an errand to the queen, or through her to the hives of nodes."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rbee_keeper.errand import Need
    from rbee_keeper.pool.hive import Hive
    from rbee_keeper.pool.hosts import Answer, Manner
    from rbee_keeper.render import Screen
    from rbee_shared.steering_api import SteeringApi


@dataclass(frozen=True)
class Common:
    """The options that all of them have."""

    queen_url: str | None
    token_file: Path | None
    json: bool
    quiet: bool = False


class Goer(Protocol):
    """Goes to the queen and ends the command with the status that `business` returns."""

    def __call__(self, need: "Need", business: "Callable[[SteeringApi, Screen], Awaitable[int]]") -> None: ...


class Asker(Protocol):
    """Asks each hive and ends the command with the highest status. `waiting_for` is said while it lasts."""

    def __call__(self, manner: "Manner", waiting_for: str, ask: "Callable[[Hive], Awaitable[Answer]]") -> None: ...


@contextmanager
def errand(common: Common) -> Generator[Goer]:
    """A command's body: an error in it is shown, and becomes the exit status."""
    from rbee_keeper.errand import Errand, run_errand  # noqa: PLC0415 - `--help` starts without it
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415

    with command(quiet=common.quiet, json=common.json) as run:
        settings = load_settings(queen_url=common.queen_url, token_file=common.token_file)
        yield lambda need, business: run(run_errand, settings, Errand(need, business))


@contextmanager
def asked_of(hosts: Sequence[str] | None, common: Common) -> Generator[Asker]:
    """The body of a command that asks the hives of `hosts`."""
    from rbee_keeper.pool.hosts import Asking, hosts_named  # noqa: PLC0415 - as above

    with errand(common) as go:
        names = hosts_named(hosts)
        yield lambda manner, waiting_for, ask: go(manner.need, Asking(names, waiting_for, ask, manner.if_asleep))
