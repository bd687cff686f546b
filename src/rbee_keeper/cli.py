"""The commands of the keeper and their exit status."""

from typing import Annotated

import typer

from rbee_keeper.commands import queen
from rbee_keeper.commands.infer import infer
from rbee_keeper.commands.status import status
from rbee_keeper.commands.token import token
from rbee_shared.version import __version__

# rich would make `--help` three times as slow and its tracebacks unreadable in a log
app = typer.Typer(
    name="rbee-keeper",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command()(infer)
app.add_typer(queen.app, name="queen")
app.command()(status)
app.command()(token)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rbee-keeper {__version__}")
        raise typer.Exit


@app.callback()
def _keeper(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """One private LLM cluster out of the machines you already own.

    rbee-keeper infer "write a short story"
    """


def run() -> int:
    """Run the command that the command line names; never raises for what a user may do wrong."""
    try:
        app()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    return 0
