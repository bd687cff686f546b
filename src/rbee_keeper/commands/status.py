"""`status`: the queen, her nodes with their devices, and the workers. Never wakes anybody."""

from rbee_keeper.commands.options import Json, QueenUrl, TokenFile


def status(queen_url: QueenUrl = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Show the cluster. Exit 3 when the queen is asleep."""
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_keeper.tables import show_cluster  # noqa: PLC0415

    with command(json=json) as run:
        run(show_cluster, load_settings(queen_url=queen_url, token_file=token_file))
