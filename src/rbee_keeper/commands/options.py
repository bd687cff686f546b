"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from rbee_shared.redaction import printable_line

_MAX_NAME_CHARACTERS = 255


def node_name(text: str) -> str:
    """A node's name or address as typed; it stands in URLs and on terminals.

    Raises:
        typer.BadParameter: it cannot be one.
    """
    if (
        not text
        or len(text) > _MAX_NAME_CHARACTERS
        or "/" in text
        or len(text.split()) != 1
        or text != printable_line(text)
    ):
        raise typer.BadParameter(f"{text!a} is not the name of a node")
    return text


def _node_names(given: list[str] | None) -> list[str]:
    return [node_name(text) for text in given or ()]


QueenUrl = Annotated[str | None, typer.Option("--queen-url", help="A queen that runs elsewhere [RBEE_QUEEN_URL].")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="Her token [RBEE_TOKEN_FILE, ~/.rbee/token].")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result and errors.")]
Host = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="NODE",
        callback=_node_names,
        help="On which node; may be given often, or be `all` [localhost].",
    ),
]
NodeName = Annotated[
    str, typer.Argument(metavar="NAME", callback=node_name, help="A node of the catalog, by name or address.")
]
ModelName = Annotated[str, typer.Argument(metavar="ID", help="Its id, alias or reference.")]
Check = Annotated[bool, typer.Option("--check", help="Only say what would be done.")]
Drain = Annotated[bool, typer.Option("--drain", help="Let its workers finish and stop them, instead of refusing.")]
