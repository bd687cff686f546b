"""`queen start|stop|status`: a standing queen, who stays until she is told to go."""

from typing import Annotated

import typer

from rbee_keeper.commands.options import Json, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="A standing queen: start, stop, status.", no_args_is_help=True)


@app.command()
def start(
    port: Annotated[int | None, typer.Option(help="Where she listens; 0 lets the system choose [8080].")] = None,
    quiet: Quiet = False,
) -> None:
    """Start a queen who stays, and print her URL."""
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_keeper.standing_queen import start_queen  # noqa: PLC0415

    with command(quiet=quiet) as run:
        run(start_queen, load_settings(port=port))


@app.command()
def stop(queen_url: QueenUrl = None, token_file: TokenFile = None, quiet: Quiet = False) -> None:
    """Stop the queen and all that she started; wait until she is gone."""
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_keeper.standing_queen import stop_queen  # noqa: PLC0415

    with command(quiet=quiet) as run:
        run(stop_queen, load_settings(queen_url=queen_url, token_file=token_file))


@app.command()
def status(queen_url: QueenUrl = None, json: Json = False) -> None:
    """Is she awake, and how is she? Exit 3 when she is asleep."""
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_keeper.tables import show_queen  # noqa: PLC0415

    with command(json=json) as run:
        run(show_queen, load_settings(queen_url=queen_url))
