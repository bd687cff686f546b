"""The commands of the keeper and their exit status."""

import typer

from rbee_keeper.commands import node, pool, queen
from rbee_keeper.commands.infer import infer
from rbee_keeper.commands.status import status
from rbee_keeper.commands.token import token
from rbee_shared.version_option import VersionOption

# rich would make `--help` three times as slow and its tracebacks unreadable in a log
app = typer.Typer(
    name="rbee-keeper",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.command()(infer)
app.add_typer(node.app, name="node")
app.add_typer(pool.app, name="pool")
app.add_typer(queen.app, name="queen")
app.command()(status)
app.command()(token)


@app.callback()
def _keeper(version: VersionOption = False) -> None:
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
