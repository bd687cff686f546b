"""This node's models, worker builds and devices where no hive runs: what `node` offers, done on the files.

The catalogs may be opened by any number of processes at once, so a hive that starts meanwhile does no harm.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from rbee_hive.models.library import ModelLibrary
from rbee_hive.provisions import Provision, Provisions, Work
from rbee_hive.settings import HiveSettings
from rbee_hive.tally import Tally
from rbee_hive.workbench import opened_builder, opened_library, provisioner_of
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.models import (
    ImportRequest,
    ModelChange,
    ModelProvisionRequest,
    ModelRow,
    RegisterRequest,
    Removal,
    Verification,
)
from rbee_shared.contracts.nodes import Devices
from rbee_shared.contracts.provisions import BuildRow, ProvisionEnd, WorkerProvisionRequest
from rbee_shared.errors import DiskFullError, ModelNotFoundError
from rbee_shared.narration import Narrator
from rbee_shared.paths import Home

if TYPE_CHECKING:
    from rbee_hive.builds.builder import WorkerBuilder


@dataclass(frozen=True)
class LocalFiles:
    """Made by `open`. `narrator`: tells the person what was found out beside the answer."""

    home: Home
    settings: HiveSettings
    clocks: Clocks
    library: ModelLibrary
    narrator: Narrator

    @classmethod
    @asynccontextmanager
    async def open(
        cls, home: Home, settings: HiveSettings, clocks: Clocks, narrator: Narrator
    ) -> AsyncGenerator["LocalFiles"]:
        """The catalog of this home, made first if there is none, with the model that ships in it."""
        await anyio.to_thread.run_sync(_make, home)
        async with opened_library(home, settings, narrator) as library:
            yield cls(home, settings, clocks, library, narrator)

    async def devices(self) -> Devices:
        from rbee_hive.devices.detect import NodeDevices  # noqa: PLC0415 - only `detect` looks for devices

        async with NodeDevices.open(self.settings.devices) as devices:
            found = await devices.facts({})
        rows = await self.library.catalog.rows()
        return Devices(cpu=found.cpu, gpus=found.gpus, models=len(rows), workers=0, problems=found.problems)

    # models

    async def models(self) -> tuple[ModelRow, ...]:
        return await self.library.catalog.rows()

    async def find_model(self, text: str) -> ModelRow:
        row = await self.library.look_up(text)
        if row is None:
            raise ModelNotFoundError(
                f"{text} is not in the model catalog of this node", hint="`rbee-hive models catalog` lists what is."
            )
        return row

    async def register(self, order: RegisterRequest) -> ModelRow:
        return await self.library.register(order)

    async def import_model(self, order: ImportRequest) -> ModelRow:
        return await self.library.take_in(order)

    async def change_model(self, model_id: str, change: ModelChange) -> ModelRow:
        catalog = self.library.catalog
        return await catalog.change(model_id, name=change.name, pinned=change.pinned, aliases=change.aliases)

    async def verify_model(self, model_id: str) -> Verification:
        return await self.library.verify(model_id)

    async def remove_model(self, model_id: str, *, files: bool) -> Removal:
        return await self.library.remove(model_id, files=files, in_use=tuple)

    @asynccontextmanager
    async def provide_model(self, order: ModelProvisionRequest) -> AsyncGenerator[AsyncIterator[bytes]]:
        work = partial(provisioner_of(self.library, self.clocks, Tally()).provide, order)
        async with self._events(work, "model", order.chosen_model) as events:
            yield events

    # builds

    async def builds(self) -> tuple[BuildRow, ...]:
        async with self._builder() as builder:
            return await builder.rows()

    @asynccontextmanager
    async def provide_build(self, order: WorkerProvisionRequest) -> AsyncGenerator[AsyncIterator[bytes]]:
        async with self._builder() as builder:

            async def work(job: Provision) -> ProvisionEnd:
                narrator = job.narrator.speaking_as("hive")
                row = await builder.provide(order.bare_kind, narrator, job.progress, rebuild=order.rebuild)
                return ProvisionEnd(build=row)

            async with self._events(work, "build", order.bare_kind) as events:
                yield events

    async def remove_build(self, build_id: str) -> BuildRow:
        async with self._builder() as builder:
            return await builder.remove(build_id)

    def _builder(self) -> "AbstractAsyncContextManager[WorkerBuilder]":
        return opened_builder(self.home, self.settings, self.clocks, self.narrator)

    @asynccontextmanager
    async def _events(self, work: Work, *key: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """The events of work that is done for the length of the block, and cancelled on leaving it."""
        async with Provisions.open(node=self.settings.name, grace_s=0) as provisions:
            provision = provisions.start(work, *key)
            async with aclosing(provision.log.follow()) as events:
                yield events


def _make(home: Home) -> None:
    try:
        home.ensure()
    except OSError as error:
        raise DiskFullError(f"cannot write below {home.root}: {error.strerror}") from None
