"""`queen start|stop|status`: a standing queen, who stays until she is told to go."""

from pathlib import Path
from typing import Annotated

import typer

from rbee_keeper.render import Style
from rbee_keeper.session import complain, screen_for, spoken
from rbee_keeper.settings import load_settings
from rbee_keeper.standing_queen import start_queen, stop_queen
from rbee_keeper.tables import show_queen
from rbee_shared.errors import RbeeError

app = typer.Typer(help="A standing queen: start, stop, status.", no_args_is_help=True)

QueenUrl = Annotated[str | None, typer.Option("--queen-url", help="A queen that runs elsewhere [RBEE_QUEEN_URL].")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="Her token [RBEE_TOKEN_FILE, ~/.rbee/token].")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result and errors.")]


@app.command()
def start(
    port: Annotated[int | None, typer.Option(help="Where she listens; 0 lets the system choose [8080].")] = None,
    quiet: Quiet = False,
) -> None:
    """Start a queen who stays, and print her URL."""
    style = Style(quiet=quiet)
    try:
        settings = load_settings(port=port)
    except RbeeError as error:
        raise typer.Exit(complain(error, style)) from None
    raise typer.Exit(spoken(start_queen, settings, screen_for(settings, style)))


@app.command()
def stop(queen_url: QueenUrl = None, token_file: TokenFile = None, quiet: Quiet = False) -> None:
    """Stop the queen and all that she started; wait until she is gone."""
    style = Style(quiet=quiet)
    try:
        settings = load_settings(queen_url=queen_url, token_file=token_file)
    except RbeeError as error:
        raise typer.Exit(complain(error, style)) from None
    raise typer.Exit(spoken(stop_queen, settings, screen_for(settings, style)))


@app.command()
def status(queen_url: QueenUrl = None, json: Json = False) -> None:
    """Is she awake, and how is she? Exit 3 when she is asleep."""
    style = Style(json=json)
    try:
        settings = load_settings(queen_url=queen_url)
    except RbeeError as error:
        raise typer.Exit(complain(error, style)) from None
    raise typer.Exit(spoken(show_queen, settings, screen_for(settings, style)))
