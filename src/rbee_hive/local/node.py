"""What a person may ask of this node, whether a hive runs here or not: devices, models, worker builds."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

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
from rbee_shared.contracts.provisions import BuildRow, WorkerProvisionRequest

Events = AbstractAsyncContextManager[AsyncIterator[bytes]]
"""The event stream of a provision, as bytes. Who leaves the block early no longer waits for it."""


class Node(Protocol):
    """`hive_api` asks the hive that runs; `local_files` does the same on the files. Every failure is an `RbeeError`."""

    async def devices(self) -> Devices: ...

    async def models(self) -> tuple[ModelRow, ...]:
        """Every row of the catalog, ordered by id."""
        ...

    async def find_model(self, text: str) -> ModelRow:
        """The row that an id, an alias or a reference means; `ModelNotFoundError` if there is none."""
        ...

    async def register(self, order: RegisterRequest) -> ModelRow: ...

    async def import_model(self, order: ImportRequest) -> ModelRow: ...

    async def change_model(self, model_id: str, change: ModelChange) -> ModelRow: ...

    async def verify_model(self, model_id: str) -> Verification: ...

    async def remove_model(self, model_id: str, *, files: bool) -> Removal: ...

    def provide_model(self, order: ModelProvisionRequest) -> Events: ...

    async def builds(self) -> tuple[BuildRow, ...]: ...

    def provide_build(self, order: WorkerProvisionRequest) -> Events: ...

    async def remove_build(self, build_id: str) -> BuildRow: ...
