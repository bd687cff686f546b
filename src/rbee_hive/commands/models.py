"""`models …`: the catalog of this node and its files."""

import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from rbee_hive.commands.options import Json, ModelName
from rbee_hive.local.node import Node
from rbee_hive.local.provision_stream import read_to_the_end
from rbee_hive.local.screen import Screen
from rbee_hive.local.session import Session, session, wire
from rbee_shared import hive_views as views
from rbee_shared.contracts.models import (
    ImportRequest,
    ModelChange,
    ModelList,
    ModelProvisionRequest,
    ModelRow,
    RegisterRequest,
    Removal,
    Verification,
)
from rbee_shared.contracts.provisions import ProvisionEnd
from rbee_shared.errors import InvalidRequestError
from rbee_shared.exit_codes import FAILED
from rbee_shared.units import format_bytes

app = typer.Typer(help="Models: the catalog of this node and its files.", no_args_is_help=True)

_CATALOG = "the model catalog"
Aliases = Annotated[list[str] | None, typer.Option("--alias", help="Another name for it; may be given often.")]


@app.command()
def register(
    model_id: Annotated[str, typer.Option("--id", help="What it is called here.")],
    repo: Annotated[str, typer.Option(help="owner/repo of the Hub, or any hf: reference.")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    architecture: Annotated[str | None, typer.Option(help="llama, qwen2, …")] = None,
    alias: Aliases = None,
    json: Json = False,
) -> None:
    """Add a model of the Hub to the catalog without fetching it."""
    with session(json=json) as here:
        order = wire(
            RegisterRequest, id=model_id, name=name, repo=repo, architecture=architecture, aliases=alias or None
        )
        row = here.on_node(lambda node: node.register(order), waiting_for=_CATALOG)
        _show(here, row, f"{row.id} is in the catalog: fetch it with `rbee-hive models download {row.id}`")


@app.command()
def download(
    model: Annotated[str, typer.Argument(metavar="ID|REF", help="An id, hf:owner/repo[:quant], or a URL.")],
    model_id: Annotated[
        str | None, typer.Option("--id", help="What it is called here. Default: its file's name.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the file; wanted with a URL.")] = None,
    json: Json = False,
) -> None:
    """Fetch a model; what was fetched before is not fetched again."""
    with session(json=json) as here:
        order = wire(ModelProvisionRequest, model=model, id=model_id, sha256=sha256 and sha256.lower())

        async def fetch(node: Node) -> ProvisionEnd:
            return await _download(node, order, here.screen)

        end = here.on_node(fetch, waiting_for=f"{model} to be fetched")
        here.screen.answer(end, lambda _: views.provided(end))


async def _download(node: Node, order: ModelProvisionRequest, screen: Screen) -> ProvisionEnd:
    try:
        async with node.provide_model(order) as events:
            return await read_to_the_end(events, screen.hear)
    except anyio.get_cancelled_exc_class():
        screen.narrator.tell("interrupt", "what was fetched is kept: the same command goes on from there", cute="📥")
        raise


@app.command("list")
def list_(json: Json = False) -> None:
    """The models whose files are here."""
    with session(json=json) as here:
        rows = tuple(row for row in _rows(here) if row.is_downloaded)
        here.screen.answer(ModelList(models=rows), lambda width: views.downloaded(rows, here.node_name, width))


@app.command()
def catalog(json: Json = False) -> None:
    """Every model that this node knows, fetched or not."""
    with session(json=json) as here:
        rows = _rows(here)
        here.screen.answer(ModelList(models=rows), lambda width: views.catalog(rows, here.node_name, width))


@app.command()
def show(model: ModelName, json: Json = False) -> None:
    """All that the catalog knows of a model."""
    with session(json=json) as here:
        row = here.on_node(lambda node: node.find_model(model), waiting_for=_CATALOG)
        here.screen.answer(row, lambda width: views.model(row, width))


@app.command()
def verify(model: ModelName, json: Json = False) -> None:
    """Hash a model's files anew and compare. Exit 1 when they are not what they were."""

    async def check(node: Node) -> Verification:
        return await node.verify_model((await node.find_model(model)).id)

    with session(json=json) as here:
        found = here.on_node(check, waiting_for=f"the files of {model} to be read")
        here.screen.answer(found, lambda _: views.verification(found))
        if not found.ok:
            raise typer.Exit(FAILED)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A GGUF file of this machine; of a split one, its first part.")],
    model_id: Annotated[
        str | None, typer.Option("--id", help="What it is called here. Default: its file's name.")
    ] = None,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    alias: Aliases = None,
    json: Json = False,
) -> None:
    """Add a file to the catalog; it stays where it is."""
    with session(json=json) as here:
        where = str(path.expanduser().absolute())
        order = wire(ImportRequest, path=where, anywhere=True, id=model_id, name=name, aliases=alias or None)
        row = here.on_node(lambda node: node.import_model(order), waiting_for=_CATALOG)
        _show(here, row, f"{row.id} is in the catalog: {row.local_path}")


@app.command()
def unregister(model: ModelName, json: Json = False) -> None:
    """Forget a model; its files stay."""

    async def forget(node: Node) -> Removal:
        return await node.remove_model((await node.find_model(model)).id, files=False)

    with session(json=json) as here:
        done = here.on_node(forget, waiting_for=_CATALOG)
        here.screen.answer(done, lambda _: views.removal(done))


@app.command()
def remove(
    model: ModelName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Forget a model and delete its files."""
    with session(json=json) as here:
        row = here.on_node(lambda node: node.find_model(model), waiting_for=_CATALOG)
        if not yes and not _agreed(row):
            raise typer.Exit(FAILED)
        done = here.on_node(lambda node: node.remove_model(row.id, files=True), waiting_for=_CATALOG)
        here.screen.answer(done, lambda _: views.removal(done))


@app.command()
def pin(model: ModelName, json: Json = False) -> None:
    """Keep a model: its workers are not stopped for being idle, its files are not removed."""
    with session(json=json) as here:
        row = _change(here, model, ModelChange(pinned=True))
        _show(here, row, f"{row.id} is pinned")


@app.command()
def unpin(model: ModelName, json: Json = False) -> None:
    """Let a model go again."""
    with session(json=json) as here:
        row = _change(here, model, ModelChange(pinned=False))
        _show(here, row, f"{row.id} is not pinned")


@app.command()
def alias(
    model: ModelName,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="None: it has no other name.")] = None,
    json: Json = False,
) -> None:
    """Give a model other names, in place of those it had."""
    with session(json=json) as here:
        row = _change(here, model, wire(ModelChange, aliases=names or []))
        called = f"is also called {', '.join(row.aliases)}" if row.aliases else "has no other name"
        _show(here, row, f"{row.id} {called}")


def _rows(here: Session) -> tuple[ModelRow, ...]:
    return here.on_node(lambda node: node.models(), waiting_for=_CATALOG)


def _change(here: Session, model: str, change: ModelChange) -> ModelRow:
    async def apply(node: Node) -> ModelRow:
        return await node.change_model((await node.find_model(model)).id, change)

    return here.on_node(apply, waiting_for=_CATALOG)


def _show(here: Session, row: ModelRow, text: str) -> None:
    here.screen.answer(row, lambda _: text)


def _agreed(row: ModelRow) -> bool:
    """Whether the person at the terminal says yes.

    Raises:
        InvalidRequestError: there is nobody to ask.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidRequestError(f"{row.id} would lose its files", hint="Say that you mean it: --yes.")
    what = ", ".join(part.path for part in row.files) or "no file"
    return typer.confirm(f"Remove {row.id} ({format_bytes(row.size_bytes)}: {what})?", err=True)
