"""`token`: print the cluster's token, for `curl -H "Authorization: Bearer $(rbee-keeper token)"`."""

from pathlib import Path
from typing import Annotated

import typer

from rbee_keeper.render import Style
from rbee_keeper.session import complain
from rbee_keeper.settings import load_settings
from rbee_shared.errors import RbeeError


def token(
    token_file: Annotated[Path | None, typer.Option(help="[RBEE_TOKEN_FILE, ~/.rbee/token]")] = None,
) -> None:
    """Print the token of this machine's cluster; makes it if nothing of rbee has run here yet."""
    from rbee_shared.auth import read_or_make_token  # noqa: PLC0415 - only this command makes one

    try:
        settings = load_settings(token_file=token_file)
        if settings.token_file is None:
            typer.echo(read_or_make_token(settings.home.ensure().token))
        else:
            typer.echo(settings.token())
    except RbeeError as error:
        raise typer.Exit(complain(error, Style())) from None
