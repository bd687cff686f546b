"""`pool builds …`: llama.cpp compiled for the devices of nodes."""

from rbee_keeper.pool.hive import Hive
from rbee_keeper.pool.hosts import Answer, sentence
from rbee_keeper.pool.models import Ask
from rbee_shared import hive_views
from rbee_shared.contracts.provisions import BuildList, WorkerProvisionRequest


async def listed(hive: Hive) -> Answer:
    """The worker builds of the node."""
    rows = await hive.builds()
    document = BuildList(builds=rows).model_dump(mode="json")
    return Answer(document, lambda width: hive_views.builds(rows, hive.node, width))


def make(order: WorkerProvisionRequest) -> Ask:
    """Have a build of that kind: found, installed from a wheel, or compiled."""

    async def ask(hive: Hive) -> Answer:
        end = await hive.provide_build(order)
        return Answer(end.model_dump(mode="json"), lambda _: hive_views.provided(end, f"on {hive.node}"))

    return ask


def remove(build_id: str) -> Ask:
    """Delete a build; it is made again when a worker needs it."""

    async def ask(hive: Hive) -> Answer:
        row = await hive.remove_build(build_id)
        return sentence(row, f"{row.id} is gone from {hive.node}")

    return ask
