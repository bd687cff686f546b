"""`status`, `detect` and `stop`: what runs here, what this machine has, and the end of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from rbee_hive.commands.options import Json
from rbee_hive.local.session import session
from rbee_shared import hive_views as views
from rbee_shared.contracts.hives import HiveStatus

if TYPE_CHECKING:
    from rbee_hive.local.hive_api import HiveApi


def status(json: Json = False) -> None:
    """Show the hive that runs here: its devices, workers, models and builds. Exit 3 when none does."""
    with session(json=json) as here:
        found, pid = here.on_hive(_status_and_pid, waiting_for="the hive")
        here.screen.answer(
            {**found.model_dump(mode="json"), "pid": pid}, lambda width: views.status(found, width, [("pid", pid)])
        )


async def _status_and_pid(hive: "HiveApi") -> tuple[HiveStatus, int]:
    return await hive.status(), hive.running.pid


def detect(json: Json = False) -> None:
    """Show the devices of this machine, whether a hive runs or not."""
    with session(json=json) as here:
        found = here.on_node(lambda node: node.devices(), waiting_for="the devices")
        here.screen.answer(found, lambda width: views.devices(found, here.node_name, width))


def stop(
    kill: Annotated[
        bool, typer.Option("--kill", help="End it by signals if it does not answer, or does not go.")
    ] = False,
    now: Annotated[bool, typer.Option("--now", help="By signals at once, without asking it or waiting long.")] = False,
    json: Json = False,
) -> None:
    """Stop the hive that runs here, and what a killed one has left; done when nothing of it is there."""
    from rbee_hive.local.hive_stop import HiveStop  # noqa: PLC0415 - the other commands start without it

    with session(json=json) as here:
        order = HiveStop(here.home, here.clocks, here.screen.narrator, here.read_token)
        done = here.run(lambda: order.carry_out(kill=kill, now=now), waiting_for="the hive to stop")
        here.screen.answer(done, lambda _: views.hive_farewell(done))
