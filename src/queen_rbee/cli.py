"""`queen-rbee [daemon] …`: parse, run, exit with the daemon's status; nothing else."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from queen_rbee.queen import live
from queen_rbee.settings import QueenSettings
from rbee_shared.daemon import Daemon, run_daemon
from rbee_shared.parent import Parent
from rbee_shared.settings import load_settings
from rbee_shared.version_option import VersionOption

PROGRAM = "queen-rbee"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(options_metavar="[daemon] [OPTIONS]")
def daemon(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Default 8080; 0 lets the system choose.")] = None,
    bind: Annotated[
        str | None, typer.Option(help="Default 127.0.0.1; with any other, every route wants a token.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="The cluster's token. Default: ~/.rbee/token.")] = None,
    config: Annotated[Path | None, typer.Option(help="Default: ~/.rbee/config.toml.")] = None,
    parent: Annotated[Parent | None, typer.Option(help="stdin: a keeper has started this queen.", hidden=True)] = None,
    version: VersionOption = False,
) -> None:
    """Take tasks, decide where they run, relay their answers; until stopped."""
    if parent is Parent.SSH:
        raise typer.BadParameter("only `stdin` is known", param_hint="--parent")

    async def body(running: Daemon) -> None:
        flags = {"port": port, "bind": bind}
        settings = load_settings(QueenSettings, flags=flags, config=config or running.home.config)
        await live(running, settings, token_file)

    raise typer.Exit(run_daemon(PROGRAM, body, parent=parent, use_uvloop=True))


def main() -> None:
    """`daemon` is the only command, so its name may be left out."""
    arguments = sys.argv[1:]
    app(args=arguments[1:] if arguments[:1] == ["daemon"] else arguments, prog_name=PROGRAM)
