"""Before something is deleted that nobody can bring back: a yes at the terminal, or `--yes`."""

import sys
from typing import Annotated

import typer

_FAILED = 1

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def require_consent(question: str, loss: str, *, hint: str = "Say that you mean it: --yes.") -> None:
    """Return if the person at the terminal says yes to `question`. `loss`: what would happen, where nobody is there.

    Raises:
        InvalidRequestError: there is nobody to ask.
        typer.Exit: they say no.
    """
    from rbee_shared.errors import InvalidRequestError  # noqa: PLC0415 - `--help` starts without them
    from rbee_shared.redaction import printable_line  # noqa: PLC0415

    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidRequestError(loss, hint=hint)
    if not typer.confirm(printable_line(question), err=True):
        raise typer.Exit(_FAILED)
