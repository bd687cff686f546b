"""The model catalog: which model files lie on this node. On disk, so it survives restarts.

Each write is one statement, so a killed hive leaves either the row before or the row after.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import aiosqlite
import anyio

from rbee_hive.domain.file_rules import unique_id
from rbee_hive.model_files import ModelFile
from rbee_shared.contracts.models import ModelRow
from rbee_shared.errors import ModelNotFoundError
from rbee_shared.model_ref import ModelRef, parse_model_ref
from rbee_shared.sqlite import Quarantined, open_database

_APPLICATION_ID = 0x7262_6D64  # "rbmd"
_COLUMNS = "id, provider, reference, local_path, size_bytes, downloaded_at_unix"
EMBEDDED_ID = "storyteller"


class ModelCatalog:
    """Rows of `models.db`. Made by `open`."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._writing = anyio.Lock()  # an id is chosen and used without another writer in between
        self.ids: tuple[str, ...] = ()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, quarantined: Callable[[Quarantined], None]) -> AsyncGenerator["ModelCatalog"]:
        """Open the catalog at `path`, made or upgraded first; closed on leaving."""
        migrations = files("rbee_hive").joinpath("sql")
        async with open_database(
            path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=quarantined
        ) as db:
            catalog = cls(db)
            await catalog._refresh()
            yield catalog

    async def rows(self) -> tuple[ModelRow, ...]:
        """Every model, ordered by id."""
        async with self._db.execute(f"SELECT {_COLUMNS} FROM models ORDER BY id") as cursor:  # noqa: S608 - constants
            return tuple([ModelRow(**dict(row)) async for row in cursor])

    async def get(self, model_id: str) -> ModelRow:
        """The row of that id.

        Raises:
            ModelNotFoundError: there is none.
        """
        return await self._only("id = ?", (model_id,), model_id)

    async def find(self, text: str) -> ModelRow:
        """The model that an id or a reference (`provider:reference`) means.

        Raises:
            InvalidRequestError: it has the form of neither.
            ModelNotFoundError: this node does not have it.
        """
        ref = parse_model_ref(text)
        if ref.provider == "id":
            return await self.get(ref.reference)
        return await self._only("provider = ? AND reference = ?", (ref.provider, ref.reference), text)

    async def add_embedded(self, file: ModelFile) -> ModelRow:
        """Catalog the model that ships with the package; its place may have moved since the last start."""
        return await self._put(EMBEDDED_ID, ModelRef("builtin", EMBEDDED_ID), file)

    async def add_file(self, file: ModelFile) -> ModelRow:
        """Catalog a file that was named by its path; the same path again is the same row."""
        async with self._writing:
            path = str(file.path)
            async with self._db.execute("SELECT id FROM models WHERE local_path = ?", (path,)) as cursor:
                known = await cursor.fetchone()
            if known is None:
                return await self._put(unique_id(file.path, self.ids), ModelRef("file", path), file)
            await self._db.execute("UPDATE models SET size_bytes = ? WHERE id = ?", (file.size_bytes, known["id"]))
            return await self.get(known["id"])

    async def _put(self, model_id: str, ref: ModelRef, file: ModelFile) -> ModelRow:
        await self._db.execute(
            f"INSERT INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "  # noqa: S608
            "local_path = excluded.local_path, size_bytes = excluded.size_bytes",
            (model_id, ref.provider, ref.reference, str(file.path), file.size_bytes, int(time.time())),
        )
        await self._refresh()
        return await self.get(model_id)

    async def _only(self, condition: str, values: tuple[str, ...], asked: str) -> ModelRow:
        query = f"SELECT {_COLUMNS} FROM models WHERE {condition} ORDER BY downloaded_at_unix DESC LIMIT 1"  # noqa: S608
        async with self._db.execute(query, values) as cursor:
            row = await cursor.fetchone()
        if row is None:
            raise ModelNotFoundError(f"{asked} is not in the model catalog of this node")
        return ModelRow(**dict(row))

    async def _refresh(self) -> None:
        """Heartbeats carry the ids: they must not wait for the disk."""
        self.ids = tuple(row.id for row in await self.rows())
