"""`queen-rbee [daemon]`: the command line of the queen."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rbee_shared.version import __version__

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"queen-rbee {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """The brain of an rbee cluster. Without a command: the daemon with its settings."""
    if context.invoked_subcommand is None:
        daemon()


@app.command()
def daemon(
    port: Annotated[int | None, typer.Option(help="Where to listen; 0 lets the system choose.")] = None,
    bind: Annotated[str | None, typer.Option(help="Address to listen on; anything but loopback wants tokens.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The cluster's token; default ~/.rbee/token.")] = None,
    config: Annotated[Path | None, typer.Option(help="Default: ~/.rbee/config.toml.")] = None,
    parent: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run until stopped by Ctrl+C, TERM or `rbee-keeper queen stop`."""
    from queen_rbee.queen import live  # noqa: PLC0415 - `--help` must not wait for the server's libraries
    from queen_rbee.settings import QueenSettings  # noqa: PLC0415
    from rbee_shared.daemon import Daemon, run_daemon  # noqa: PLC0415
    from rbee_shared.settings import load_settings  # noqa: PLC0415

    flags: dict[str, Any] = {"port": port, "bind": bind}

    async def body(running: Daemon) -> None:
        settings = load_settings(QueenSettings, flags=flags, config=config or running.home.config)
        await live(running, settings, token_file)

    raise typer.Exit(run_daemon("queen-rbee", body, with_parent=parent == "stdin", use_uvloop=True))
