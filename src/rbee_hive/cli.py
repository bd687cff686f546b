"""The command line `rbee-hive [COMMAND] …`: without a command it is the daemon.

The daemon's start loads nothing of the local commands, and they load nothing of the daemon.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rbee_shared.parent import Parent
from rbee_shared.version_option import VersionOption

PROGRAM = "rbee-hive"
_PRIVATE_UMASK = 0o077
_FOR_ALL = frozenset({"--help", "--version"})


def daemon(  # noqa: PLR0917 - one parameter for each option
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Default 9200; 0 lets the system choose.")] = None,
    bind: Annotated[str | None, typer.Option(help="Address to listen on. Default 127.0.0.1.")] = None,
    queen: Annotated[str | None, typer.Option(help="URL of a queen to announce this hive to.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this node. Default: its host name.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The cluster's token. Default: ~/.rbee/token.")] = None,
    standalone: Annotated[bool | None, typer.Option("--standalone", help="Outlive the queens it serves.")] = None,
    config: Annotated[Path | None, typer.Option(help="Default: ~/.rbee/config.toml.")] = None,
    parent: Annotated[
        Parent | None, typer.Option(help="How a queen that has started it holds it; its stdin is hers.")
    ] = None,
    version: VersionOption = False,
) -> None:
    """Serve this machine's devices, models and workers to a queen, until stopped."""
    from rbee_hive.daemon import Start, live  # noqa: PLC0415 - the local commands start without a server
    from rbee_shared.daemon import Daemon, run_daemon  # noqa: PLC0415 - same

    flags = {
        "port": port, "bind": bind, "queen": queen, "name": name, "token_file": token_file, "standalone": standalone
    }  # fmt: skip

    async def body(daemon: Daemon) -> None:
        await live(daemon, Start(flags, config))

    raise typer.Exit(run_daemon(PROGRAM, body, parent=parent))


def main() -> None:
    """Run what the command line names; the name of `daemon` may be left out."""
    os.umask(_PRIVATE_UMASK)
    arguments = sys.argv[1:]
    if arguments[:1] == ["daemon"] or not arguments or (arguments[0].startswith("-") and arguments[0] not in _FOR_ALL):
        app = _typer()
        app.command(options_metavar="[daemon] [OPTIONS]")(daemon)
        app(args=arguments[arguments[:1] == ["daemon"] :], prog_name=PROGRAM)
    else:
        all_commands()(args=arguments, prog_name=PROGRAM)


def all_commands() -> typer.Typer:
    """The app with every command."""
    from rbee_hive.commands import builds, models, node, workers  # noqa: PLC0415 - see above

    app = _typer()
    app.callback()(_hive)
    app.command()(daemon)
    app.command()(node.status)
    app.command()(node.detect)
    app.command()(node.stop)
    app.add_typer(models.app, name="models")
    app.add_typer(workers.app, name="worker")
    app.add_typer(builds.app, name="builds")
    return app


def _hive(version: VersionOption = False) -> None:
    """The manager of this machine: its devices, models, worker builds and workers.

    Without a command it is `daemon`. The other commands ask the daemon that runs; where none does, those about models,
    builds and devices do their work themselves.
    """


def _typer() -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
