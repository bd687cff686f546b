"""`--version` of every daemon: its name and the version, then exit 0."""

from typing import Annotated

import typer

from rbee_shared.version import __version__


def _show(context: typer.Context, wanted: bool) -> None:  # noqa: FBT001 - the library's signature
    if wanted:
        typer.echo(f"{context.info_name} {__version__}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="Show it and exit.")]
