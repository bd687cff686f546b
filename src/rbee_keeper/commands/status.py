"""`status`: the queen, her nodes with their devices, and the workers. Never wakes anybody."""

import typer

from rbee_keeper.commands.queen import Json, QueenUrl, TokenFile
from rbee_keeper.render import Style
from rbee_keeper.session import complain, screen_for, spoken
from rbee_keeper.settings import load_settings
from rbee_keeper.tables import show_cluster
from rbee_shared.errors import RbeeError


def status(queen_url: QueenUrl = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Show the cluster. Exit 3 when the queen is asleep."""
    style = Style(json=json)
    try:
        settings = load_settings(queen_url=queen_url, token_file=token_file)
    except RbeeError as error:
        raise typer.Exit(complain(error, style)) from None
    raise typer.Exit(spoken(show_cluster, settings, screen_for(settings, style)))
