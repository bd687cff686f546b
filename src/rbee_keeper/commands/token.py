"""`token`: print the cluster's token, for `curl -H "Authorization: Bearer $(rbee-keeper token)"`."""

import typer

from rbee_keeper.commands.options import TokenFile


def token(token_file: TokenFile = None) -> None:
    """Print the token of this machine's cluster; makes it if nothing of rbee has run here yet."""
    from rbee_keeper.session import command  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_shared.auth import read_or_make_token  # noqa: PLC0415

    with command():
        settings = load_settings(token_file=token_file)
        if settings.token_file is None:
            typer.echo(read_or_make_token(settings.home.ensure().token))
        else:
            typer.echo(settings.token())
