"""`pool builds …`: llama.cpp, compiled for the devices of nodes."""

from typing import Annotated

import typer

from rbee_keeper.commands.errands import Common, asked_of
from rbee_keeper.commands.options import Host, Json, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="Worker builds: llama.cpp, compiled for the devices of nodes.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """The builds of a node."""
    from rbee_keeper.pool import builds  # noqa: PLC0415
    from rbee_keeper.pool.hosts import READING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(READING, "the worker builds", builds.listed)


@app.command()
def make(
    kind: Annotated[str, typer.Argument(help="cpu, cuda, metal or vulkan.")],
    *,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it anew although there is one.")] = False,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have a build of that kind: found, installed from a wheel, or compiled."""
    from rbee_keeper.pool import builds  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.provisions import WorkerProvisionRequest  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        order = order_of(WorkerProvisionRequest, kind=kind, rebuild=rebuild)
        ask(ORDERING, f"the {order.bare_kind} worker build", builds.make(order))


@app.command()
def remove(
    build_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Delete a build; it is made again when a worker needs it."""
    from rbee_keeper.pool import builds  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        ask(ORDERING, "the build to be removed", builds.remove(build_id))
