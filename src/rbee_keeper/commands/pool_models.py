"""`pool models …`: the model catalogs of nodes and their files."""

from typing import Annotated

import typer

from rbee_keeper.commands.consent import Yes, require_consent
from rbee_keeper.commands.errands import Common, asked_of
from rbee_keeper.commands.options import Host, Json, ModelName, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="Models: the catalogs of nodes and their files.", no_args_is_help=True)

_CATALOG = "the model catalog"


@app.command()
def register(
    *,
    model_id: Annotated[str, typer.Option("--id", help="What it is called there.")],
    repo: Annotated[str, typer.Option(help="owner/repo of the Hub, or any hf: reference.")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    architecture: Annotated[str | None, typer.Option(help="llama, qwen2, …")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name for it; may be given often.")] = None,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a model of the Hub to the catalog without fetching it."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.models import RegisterRequest  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        order = order_of(
            RegisterRequest, id=model_id, name=name, repo=repo, architecture=architecture, aliases=alias or None
        )
        ask(ORDERING, _CATALOG, models.register(order))


@app.command()
def download(
    model: Annotated[str, typer.Argument(metavar="ID|REF", help="An id, hf:owner/repo[:quant], or a URL.")],
    *,
    model_id: Annotated[str | None, typer.Option("--id", help="What it is called there [its file's name].")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the file; wanted with a URL.")] = None,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model; what was fetched before is not fetched again."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.models import ModelProvisionRequest  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        order = order_of(ModelProvisionRequest, model=model, id=model_id, sha256=sha256 and sha256.lower())
        ask(ORDERING, f"{model} to be fetched", models.download(order))


@app.command("list")
def list_(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """The models whose files are on a node."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import READING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(READING, _CATALOG, models.downloaded)


@app.command()
def catalog(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Every model that a node knows, fetched or not."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import READING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(READING, _CATALOG, models.catalog)


@app.command()
def show(
    model: ModelName,
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """All that the catalog of a node knows of a model."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import READING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(READING, _CATALOG, models.show(model))


@app.command()
def unregister(
    model: ModelName,
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forget a model; its files stay."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        ask(ORDERING, _CATALOG, models.remove(model, files=False))


@app.command()
def remove(
    model: ModelName,
    *,
    yes: Yes = False,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forget a model and delete its files."""
    from rbee_keeper.pool import models  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        if not yes:
            where = ", ".join(host or ("localhost",))
            require_consent(f"Remove {model} and its files from {where}?", f"{model} would lose its files")
        ask(ORDERING, _CATALOG, models.remove(model, files=True))
