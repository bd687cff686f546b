"""What loads of models were estimated at and what they took, newest kept. A table beside the model catalog's own."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import astuple, dataclass

import aiosqlite

_KEPT = 20


@dataclass(frozen=True)
class Load:
    """One load of a model: its memory by part in bytes, as estimated and as it was."""

    architecture: str
    backend: str
    model_id: str
    n_ctx: int
    slots: int
    estimated_weights: int
    estimated_kv: int
    estimated_compute: int
    actual_weights: int
    actual_kv: int
    actual_compute: int


class LoadHistory:
    """Part of a `ModelCatalog`; `change` is its way of writing."""

    def __init__(
        self,
        db: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        change: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._db = db
        self._reader = reader
        self._change = change

    async def note(self, load: Load) -> None:
        """Keep it, and the newest of its family."""
        async with self._change():
            values = (int(time.time()), *astuple(load))
            await self._db.execute(f"INSERT INTO loads VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
            await self._db.execute(
                "DELETE FROM loads WHERE rowid IN (SELECT rowid FROM loads WHERE architecture = ? AND backend = ? "
                "ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
                (load.architecture, load.backend, _KEPT),
            )

    async def of_family(self, architecture: str, backend: str) -> tuple[Load, ...]:
        """Earlier loads of that architecture on that kind of device, oldest first."""
        query = "SELECT * FROM loads WHERE architecture = ? AND backend = ? ORDER BY rowid"
        async with self._reader.execute(query, (architecture, backend)) as cursor:
            return tuple([Load(*tuple(row)[1:]) async for row in cursor])
