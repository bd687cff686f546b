"""What keeps models, what fetches them and what makes worker builds, put together: for a hive, and without one."""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from rbee_hive.domain.models.transfer import Limits
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.hub import Hub, Patience
from rbee_hive.models.library import ModelLibrary
from rbee_hive.models.provisioner import ModelProvisioner
from rbee_hive.settings import HiveSettings
from rbee_hive.tally import Tally
from rbee_shared.clocks import Clocks
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home
from rbee_shared.sqlite import Quarantined

if TYPE_CHECKING:
    from rbee_hive.builds.builder import WorkerBuilder


@asynccontextmanager
async def opened_library(home: Home, settings: HiveSettings, narrator: Narrator) -> AsyncGenerator[ModelLibrary]:
    """The models of this home with the one that ships; a damaged catalog is made anew from what lies there."""
    pending = home.models / ".rebuild"  # stays until all is found again: a kill in between is made up for

    def note_damage(moved: Quarantined) -> None:
        pending.touch()
        narrator.tell("catalog_damaged", str(moved), cute="🩹", level="error", kept_as=str(moved.moved_to))

    directory = Path(await anyio.Path(home.models).resolve())
    async with ModelCatalog.open(home.models_db, note_damage) as catalog:
        library = ModelLibrary(catalog, directory, settings.model_roots, narrator)
        await library.take_in_embedded()
        if await anyio.Path(pending).exists():
            found = await library.rebuild()
            narrator.tell("catalog_rebuilt", f"found {found} models again in {directory}", cute="🩹")
            await anyio.Path(pending).unlink()
        yield library


def provisioner_of(library: ModelLibrary, clocks: Clocks, tally: Tally) -> ModelProvisioner:
    """A provisioner that fetches into `library`."""
    limits = Limits(connect_s=clocks.connect_s, stall_s=clocks.download_stall_s)
    patience = Patience(silence_s=clocks.control_call_s, question_s=clocks.hub_s)
    return ModelProvisioner(library, Hub.from_environment(limits=limits, patience=patience), limits, tally)


@asynccontextmanager
async def opened_builder(
    home: Home,
    settings: HiveSettings,
    clocks: Clocks,
    narrator: Narrator,
    *,
    in_use: Callable[[], Collection[str]] = tuple,
) -> "AsyncGenerator[WorkerBuilder]":
    """The builder of this home, its catalog open. `in_use`: the directories of builds that workers run."""
    from rbee_hive.builds.builder import WorkerBuilder  # noqa: PLC0415
    from rbee_hive.builds.catalog import WorkerCatalog  # noqa: PLC0415
    from rbee_hive.builds.files import shipped_lock  # noqa: PLC0415
    from rbee_hive.builds.workshop import Workshop  # noqa: PLC0415 - as above

    def say_damage(moved: Quarantined) -> None:
        narrator.tell("catalog_damaged", str(moved), cute="🩹", level="error", kept_as=str(moved.moved_to))

    lock = await anyio.to_thread.run_sync(shipped_lock)
    async with WorkerCatalog.open(home.workers_db, home.workers, say_damage) as catalog:
        wheels_dir = await anyio.to_thread.run_sync(_wheels, home, settings)
        shop = Workshop(home, clocks, lock, wheels_dir=wheels_dir, jobs=settings.build_jobs)
        yield WorkerBuilder(catalog, shop, narrator, in_use=in_use)


def _wheels(home: Home, settings: HiveSettings) -> Path | None:
    """Blocks: one look."""
    return settings.wheels_dir or (home.wheels if home.wheels.is_dir() else None)
