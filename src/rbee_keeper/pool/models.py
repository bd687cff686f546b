"""`pool models …`: the model catalogs of nodes."""

from collections.abc import Awaitable, Callable

from rbee_keeper.pool.hive import Hive
from rbee_keeper.pool.hosts import Answer, sentence
from rbee_shared import hive_views
from rbee_shared.contracts.models import ModelList, ModelProvisionRequest, ModelRow, RegisterRequest, Removal

Ask = Callable[[Hive], Awaitable[Answer]]


async def catalog(hive: Hive) -> Answer:
    """Every model that the node knows, fetched or not."""
    rows = await hive.models()
    return _listed(rows, lambda width: hive_views.catalog(rows, hive.node, width))


async def downloaded(hive: Hive) -> Answer:
    """The models whose files are there."""
    rows = tuple(row for row in await hive.models() if row.is_downloaded)
    return _listed(rows, lambda width: hive_views.downloaded(rows, hive.node, width))


def show(model: str) -> Ask:
    """All that the catalog knows of one."""

    async def ask(hive: Hive) -> Answer:
        row = await hive.find_model(model)
        return Answer(row.model_dump(mode="json"), lambda width: hive_views.model(row, width))

    return ask


def register(order: RegisterRequest) -> Ask:
    """Add a model of the Hub to the catalog without fetching it."""

    async def ask(hive: Hive) -> Answer:
        row = await hive.register(order)
        fetch = f"rbee-keeper pool models download {row.id} --host {hive.node}"
        return sentence(row, f"{row.id} is in the catalog of {hive.node}: fetch it with `{fetch}`")

    return ask


def download(order: ModelProvisionRequest) -> Ask:
    """Fetch a model; what was fetched before is not fetched again."""

    async def ask(hive: Hive) -> Answer:
        end = await hive.provide_model(order)
        return Answer(end.model_dump(mode="json"), lambda _: hive_views.provided(end, f"on {hive.node}"))

    return ask


def remove(model: str, *, files: bool) -> Ask:
    """Forget a model, and delete its files if that is wanted too."""

    async def ask(hive: Hive) -> Answer:
        await hive.wake()
        done: Removal = await hive.remove_model((await hive.find_model(model)).id, files=files)
        return Answer(done.model_dump(mode="json"), lambda _: hive_views.removal(done))

    return ask


def _listed(rows: tuple[ModelRow, ...], text: Callable[[int], str]) -> Answer:
    return Answer(ModelList(models=rows).model_dump(mode="json"), text)
