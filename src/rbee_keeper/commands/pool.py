"""`pool …`: what is on the nodes: their devices, software, worker builds, models and workers."""

from enum import StrEnum
from typing import Annotated

import typer

from rbee_keeper.commands import pool_builds, pool_models, pool_workers
from rbee_keeper.commands.errands import Common, asked_of
from rbee_keeper.commands.options import Check, Drain, Host, Json, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="Pools: what is on the nodes (--host NODE).", no_args_is_help=True)
app.add_typer(pool_builds.app, name="builds")
app.add_typer(pool_models.app, name="models")
app.add_typer(pool_workers.app, name="worker")


class Level(StrEnum):
    """How much a test covers."""

    QUICK = "quick"
    INTEGRATION = "integration"


@app.command()
def status(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """A node at a glance: version, devices, workers, models, disk, last heartbeat."""
    from rbee_keeper.pool import node  # noqa: PLC0415
    from rbee_keeper.pool.hosts import LOOKING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(LOOKING, "the nodes", node.status)


@app.command()
def update(
    *,
    check: Check = False,
    drain: Drain = False,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a node to the queen's own version, and its worker builds with it."""
    from rbee_keeper.pool import node  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415
    from rbee_shared.contracts.nodes import NodeAction  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        ask(ORDERING, "the update", node.update(NodeAction(check=check, drain=drain)))


@app.command("test")
def try_out(
    level: Annotated[Level, typer.Argument(help="quick: devices and disk; integration: a whole task.")] = Level.QUICK,
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try a node: one decoded token on each device, or a whole task."""
    from rbee_keeper.pool import node  # noqa: PLC0415
    from rbee_keeper.pool.hosts import ORDERING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        tests = {Level.QUICK: node.quick_test, Level.INTEGRATION: node.integration_test}
        ask(ORDERING, "the test", tests[level])
