"""A worker builder as a hive has it, with an engine of the test's choice."""

import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
from tests.support.engine_wheels import VERSION

from rbee_hive.builds.builder import WorkerBuilder
from rbee_hive.builds.catalog import WorkerCatalog
from rbee_hive.builds.workshop import Workshop
from rbee_hive.domain.builds.engine_lock import EngineLock, Locked
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.narration import Narration, Narrator
from rbee_shared.paths import Home
from rbee_shared.sqlite import Quarantined


@dataclass
class Audience:
    """Hears what a builder tells."""

    narrated: list[Narration] = field(default_factory=list)
    shown: list[ProgressEvent] = field(default_factory=list)
    moved: list[Quarantined] = field(default_factory=list)

    @property
    def narrator(self) -> Narrator:
        return Narrator("hive", self.narrated.append)

    @property
    def actions(self) -> list[str]:
        return [narration.action for narration in self.narrated]


@asynccontextmanager
async def builder(
    home: Path,
    audience: Audience,
    *,
    engine: str = "",
    needs: Mapping[str, Locked] | None = None,
    wheels_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
    clocks: Clocks | None = None,
    in_use: Callable[[], Collection[str]] = tuple,
) -> AsyncGenerator[WorkerBuilder]:
    """Makes builds of the requirement `engine`, with no build tools; the engine needs `needs`, by default nothing."""
    lock = EngineLock(version=VERSION, engine=engine, tools="", needs=needs or {})
    environ = dict(os.environ if environ is None else environ)
    shop = Workshop(Home(home), clocks or Clocks(), lock, wheels_dir, jobs=1, environ=environ)
    await anyio.to_thread.run_sync(shop.home.ensure)
    async with WorkerCatalog.open(shop.home.workers_db, shop.home.workers, audience.moved.append) as catalog:
        yield WorkerBuilder(catalog, shop, audience.narrator, in_use=in_use)
