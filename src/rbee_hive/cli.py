"""`rbee-hive [daemon] …`: parse, run, translate errors; nothing else."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rbee_hive.daemon import PROGRAM, Start, live
from rbee_shared.daemon import Daemon, run_daemon
from rbee_shared.version_option import VersionOption

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Parent(StrEnum):
    """How a parent holds this process."""

    STDIN = "stdin"


@app.command(options_metavar="[daemon] [OPTIONS]")
def daemon(  # noqa: PLR0917 - one parameter for each option
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Default 9200; 0 lets the system choose.")] = None,
    bind: Annotated[str | None, typer.Option(help="Address to listen on. Default 127.0.0.1.")] = None,
    queen: Annotated[str | None, typer.Option(help="URL of a queen to announce this hive to.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this node. Default: its host name.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The cluster's token. Default: ~/.rbee/token.")] = None,
    standalone: Annotated[bool | None, typer.Option("--standalone", help="Outlive the queens it serves.")] = None,
    config: Annotated[Path | None, typer.Option(help="Default: ~/.rbee/config.toml.")] = None,
    parent: Annotated[Parent | None, typer.Option(help="stdin: a parent holds this process by a pipe.")] = None,
    version: VersionOption = False,
) -> None:
    """Serve this machine's devices, models and workers to a queen, until stopped."""
    flags = {
        "port": port, "bind": bind, "queen": queen, "name": name, "token_file": token_file, "standalone": standalone
    }  # fmt: skip

    async def body(daemon: Daemon) -> None:
        await live(daemon, Start(flags, config))

    raise typer.Exit(run_daemon(PROGRAM, body, with_parent=parent is not None))


def main() -> None:
    """`daemon` is the only command, so its name may be left out."""
    arguments = sys.argv[1:]
    app(args=arguments[1:] if arguments[:1] == ["daemon"] else arguments, prog_name=PROGRAM)
