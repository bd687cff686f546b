"""`builds …`: llama.cpp compiled for the devices of this node."""

from typing import Annotated

import typer

from rbee_hive.commands.options import Json
from rbee_hive.local.node import Node
from rbee_hive.local.provision_stream import read_to_the_end
from rbee_hive.local.session import session, wire
from rbee_shared import hive_views as views
from rbee_shared.contracts.provisions import BuildList, ProvisionEnd, WorkerProvisionRequest

app = typer.Typer(help="Worker builds: llama.cpp, compiled for the devices of this node.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """The builds of this node."""
    with session(json=json) as here:
        rows = here.on_node(lambda node: node.builds(), waiting_for="the worker builds")
        here.screen.answer(BuildList(builds=rows), lambda width: views.builds(rows, here.node_name, width))


@app.command()
def make(
    kind: Annotated[str, typer.Argument(help="cpu, cuda, metal or vulkan.")],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it anew although there is one.")] = False,
    json: Json = False,
) -> None:
    """Have a build of that kind: found, installed from a wheel, or compiled."""
    with session(json=json) as here:
        order = wire(WorkerProvisionRequest, kind=kind, rebuild=rebuild)

        async def provide(node: Node) -> ProvisionEnd:
            async with node.provide_build(order) as events:
                return await read_to_the_end(events, here.screen.hear)

        end = here.on_node(provide, waiting_for=f"the {order.bare_kind} worker build")
        here.screen.answer(end, lambda _: views.provided(end))


@app.command()
def remove(build_id: Annotated[str, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """Delete a build; it is made again when a worker needs it."""
    with session(json=json) as here:
        row = here.on_node(lambda node: node.remove_build(build_id), waiting_for="the build to be removed")
        here.screen.answer(row, lambda _: f"{row.id} is gone")
