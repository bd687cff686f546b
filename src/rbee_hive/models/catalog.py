"""The model catalog: which models this node knows, and where their files lie. On disk, so it survives restarts.

Each change is one transaction, so a killed hive leaves either the row before or the row after. Reads have a connection
of their own and never wait for a write.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiosqlite
import anyio

from rbee_hive.domain.models.file_rules import unique_id
from rbee_hive.domain.models.model_choice import best_match
from rbee_hive.domain.models.model_paths import Origin
from rbee_hive.models.files import ModelFacts
from rbee_hive.models.load_history import LoadHistory
from rbee_shared.contracts.models import ModelFileRow, ModelRow, RegisterRequest
from rbee_shared.errors import AlreadyExistsError, ModelNotFoundError
from rbee_shared.model_ref import ModelRef, parse_model_ref
from rbee_shared.sqlite import Quarantined, open_database, reading, transaction

_APPLICATION_ID = 0x7262_6D64  # "rbmd"
EMBEDDED_ID = "storyteller"
_COLUMNS = (
    "id, name, provider, reference, file, revision, local_path, size_bytes, downloaded_at_unix, architecture, quant, "
    "sha256, last_used_unix, use_count, pinned, asked_revision"
)
_FILES = (
    "(SELECT json_group_array(json_object('path', path, 'size_bytes', size_bytes, 'sha256', sha256, 'modified_ns', "
    "modified_ns)) FROM (SELECT * FROM model_files WHERE model_id = models.id ORDER BY part))"
)
_ALIASES = (
    "(SELECT json_group_array(alias) FROM (SELECT * FROM model_aliases WHERE model_id = models.id ORDER BY alias))"
)


class ModelCatalog:
    """Rows of `models.db`. Made by `open`."""

    def __init__(self, path: Path, db: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._db = db
        self._reader = reader
        self._writing = anyio.Lock()  # an id is chosen and used without another writer in between
        self.loads = LoadHistory(db, reader, self._change)
        self.downloaded: tuple[str, ...] = ()
        """Ids of the models whose files are here, last used first when that was read: heartbeats must not wait."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, quarantined: Callable[[Quarantined], None]) -> AsyncGenerator["ModelCatalog"]:
        """Open the catalog at `path`, made or upgraded first; closed on leaving."""
        migrations = files("rbee_hive.models").joinpath("sql")
        async with (
            open_database(path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=quarantined) as db,
            reading(path) as reader,
        ):
            catalog = cls(path, db, reader)
            await catalog._list()
            yield catalog

    # reading

    async def rows(self) -> tuple[ModelRow, ...]:
        """Every model, ordered by id."""
        return await self._select("ORDER BY id")

    async def count(self) -> int:
        async with self._reader.execute("SELECT count(*) FROM models") as cursor:
            return int((await cursor.fetchone() or (0,))[0])

    async def get(self, name: str) -> ModelRow:
        """The row with that id or alias.

        Raises:
            ModelNotFoundError: there is none.
        """
        named = "WHERE id = ? OR id = (SELECT model_id FROM model_aliases WHERE alias = ?) ORDER BY id = ? DESC"
        rows = await self._select(named, name, name, name)
        if not rows:
            raise _unknown(name)
        return rows[0]

    async def find(self, text: str) -> ModelRow:
        """The model that an id, an alias or a reference means; of several that fit, one whose files are here.

        Raises:
            InvalidRequestError: it has the form of neither.
            ModelNotFoundError: this node does not know it.
        """
        ref = parse_model_ref(text)
        if ref.provider == "id":
            return await self.get(ref.reference)
        rows = await self._select("WHERE provider = ? AND reference = ? ORDER BY id", ref.provider, ref.source)
        if (row := best_match(rows, ref)) is None:
            raise _unknown(text)
        return row

    async def at_path(self, path: Path) -> ModelRow | None:
        """The model whose first file that is."""
        rows = await self._select("WHERE local_path = ? ORDER BY id", str(path))
        return rows[0] if rows else None

    # writing

    async def register(self, order: RegisterRequest, ref: ModelRef) -> ModelRow:
        """A row without a file for the Hub repository that `ref` means; the same again changes its name.

        Raises:
            AlreadyExistsError: the id, or the repository under another id, is there already.
        """
        origin = Origin(ref.provider, ref.source, ref.wish, ref.revision)
        async with self._change():
            known = await self._row_of(origin)
            if known is not None and known != order.id:
                raise AlreadyExistsError(f"{ref} is in the catalog already, as {known}", hint=f"Use {known}.")
            if known is None:
                await self._require_free(order.id)
            await self._db.execute(
                "INSERT INTO models (id, name, provider, reference, file, revision, architecture) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, "
                "architecture = coalesce(excluded.architecture, architecture)",
                (order.id, order.name, *_values(origin), order.architecture),
            )
            await self._set_aliases(order.id, order.aliases)
        return await self.get(order.id)

    async def put(
        self,
        origin: Origin,
        facts: ModelFacts,
        *,
        model_id: str | None = None,
        name: str = "",
        asked_revision: str = "",
    ) -> ModelRow:
        """Note the files of a model. The same origin is the same row; `model_id` None: the one it has, else a new one.

        A registered id of what is there already under another one becomes another name of it. `asked_revision`: the
        branch or tag that was asked for, where `origin` has the commit.

        Raises:
            AlreadyExistsError: `model_id` belongs to something else.
        """
        async with self._change():
            known = await self._row_of(origin)
            chosen = known or model_id or await self._new_id(facts)
            if model_id is not None and model_id != known:
                await self._require_free_or_registered(model_id, origin)
                if known is not None:
                    await self._merge(model_id, known)
            await self._write(chosen, origin, facts, name)
            if asked_revision:
                await self._db.execute("UPDATE models SET asked_revision = ? WHERE id = ?", (asked_revision, chosen))
        await self._list()
        return await self.get(chosen)

    async def require_usable(self, model_id: str, origin: Origin) -> None:
        """Raise `AlreadyExistsError` if a model from there could not be put under that id."""
        async with self._change():
            if await self._row_of(origin) != model_id:
                await self._require_free_or_registered(model_id, origin)

    async def change(
        self,
        model_id: str,
        *,
        name: str | None = None,
        pinned: bool | None = None,
        aliases: Sequence[str] | None = None,
    ) -> ModelRow:
        """Change what people may change of a row; None leaves it.

        Raises:
            ModelNotFoundError: there is no such row.
            AlreadyExistsError: an alias belongs to something else.
        """
        async with self._change():
            row_id = await self._id_of(model_id)
            await self._db.execute(
                "UPDATE models SET name = coalesce(?, name), pinned = coalesce(?, pinned) WHERE id = ?",
                (name, pinned, row_id),
            )
            if aliases is not None:
                await self._db.execute("DELETE FROM model_aliases WHERE model_id = ?", (row_id,))
                await self._set_aliases(row_id, aliases)
        return await self.get(row_id)

    async def note_use(self, model_id: str) -> None:
        """A worker was started with it."""
        async with self._change():
            await self._db.execute(
                "UPDATE models SET use_count = use_count + 1, last_used_unix = ? WHERE id = ?",
                (int(time.time()), model_id),
            )

    async def note_files(self, model_id: str, parts: Sequence[ModelFileRow], sha256: str | None) -> None:
        """Hashes and times of files that were looked at again.

        Raises:
            ModelNotFoundError: the row was removed meanwhile.
        """
        async with self._change():
            await self._id_of(model_id)
            await self._db.execute("UPDATE models SET sha256 = ? WHERE id = ?", (sha256, model_id))
            await self._put_files(model_id, parts)

    async def remove(self, model_id: str) -> None:
        """Forget a row; its files are somebody else's business."""
        async with self._change():
            await self._db.execute("DELETE FROM models WHERE id = ?", (model_id,))
        await self._list()

    # inside

    @asynccontextmanager
    async def _change(self) -> AsyncGenerator[None]:
        async with transaction(self._db, self._writing, self._path):
            yield

    async def _write(self, model_id: str, origin: Origin, facts: ModelFacts, name: str) -> None:
        await self._db.execute(
            f"INSERT INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0, 0, '') "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET name = coalesce(nullif(?, ''), nullif(name, ''), excluded.name), "
            "provider = excluded.provider, reference = excluded.reference, file = excluded.file, "
            "revision = excluded.revision, local_path = excluded.local_path, size_bytes = excluded.size_bytes, "
            "downloaded_at_unix = coalesce(downloaded_at_unix, excluded.downloaded_at_unix), "
            "architecture = excluded.architecture, quant = excluded.quant, sha256 = excluded.sha256",
            (
                model_id, name or facts.name, *_values(origin), str(facts.path), facts.size_bytes, int(time.time()),
                facts.architecture, facts.quant, facts.sha256, name,
            ),
        )  # fmt: skip
        await self._put_files(model_id, facts.files)

    async def _put_files(self, model_id: str, parts: Sequence[ModelFileRow]) -> None:
        await self._db.execute("DELETE FROM model_files WHERE model_id = ?", (model_id,))
        await self._db.executemany(
            "INSERT INTO model_files (model_id, part, path, size_bytes, sha256, modified_ns) VALUES (?, ?, ?, ?, ?, ?)",
            [(model_id, n, part.path, part.size_bytes, part.sha256, part.modified_ns) for n, part in enumerate(parts)],
        )

    async def _set_aliases(self, model_id: str, aliases: Sequence[str]) -> None:
        for alias in aliases:
            if await self._one("SELECT model_id FROM model_aliases WHERE alias = ?", alias) != model_id:
                await self._require_free(alias)
                await self._db.execute("INSERT INTO model_aliases VALUES (?, ?)", (alias, model_id))

    async def _new_id(self, facts: ModelFacts) -> str:
        taken = {row[0] for row in await self._all("SELECT id FROM models UNION SELECT alias FROM model_aliases")}
        return unique_id(facts.path, taken)

    async def _require_free(self, name: str) -> None:
        taken = "SELECT id FROM models WHERE id = ?1 UNION SELECT model_id FROM model_aliases WHERE alias = ?1"
        if (owner := await self._one(taken, name)) is not None:
            raise AlreadyExistsError(f"{name} is in the catalog already" + (f", for {owner}" if owner != name else ""))

    async def _require_free_or_registered(self, model_id: str, origin: Origin) -> None:
        """A registered row may become the row of what was fetched for it."""
        waiting = "SELECT id FROM models WHERE id = ? AND local_path IS NULL AND provider = ? AND reference = ?"
        if await self._one(waiting, model_id, origin.provider, origin.reference) is None:
            await self._require_free(model_id)

    async def _merge(self, registered: str, into: str) -> None:
        """Make the id and the aliases of a row without files other names of `into`."""
        await self._db.execute("UPDATE model_aliases SET model_id = ? WHERE model_id = ?", (into, registered))
        await self._db.execute("DELETE FROM models WHERE id = ?", (registered,))
        await self._db.execute("INSERT INTO model_aliases VALUES (?, ?)", (registered, into))

    async def _id_of(self, name: str) -> str:
        """The id that a name means, inside a transaction."""
        query = "SELECT id FROM models WHERE id = ?1 UNION SELECT model_id FROM model_aliases WHERE alias = ?1"
        if (row_id := await self._one(query, name)) is None:
            raise _unknown(name)
        return row_id

    async def _row_of(self, origin: Origin) -> str | None:
        query = "SELECT id FROM models WHERE provider = ? AND reference = ? AND file = ? AND revision = ?"
        return await self._one(query, *_values(origin))

    async def _one(self, query: str, *values: str) -> str | None:
        async with self._db.execute(query, values) as cursor:
            row = await cursor.fetchone()
        return None if row is None else str(row[0])

    async def _all(self, query: str) -> list[Any]:
        async with self._db.execute(query) as cursor:
            return list(await cursor.fetchall())

    async def _select(self, rest: str, *values: str) -> tuple[ModelRow, ...]:
        """Rows with their files and aliases, in one query however many they are."""
        query = f"SELECT {_COLUMNS}, {_FILES} AS files, {_ALIASES} AS aliases FROM models {rest}"  # noqa: S608 - constants
        async with self._reader.execute(query, values) as cursor:
            return tuple([_row(found) async for found in cursor])

    async def _list(self) -> None:
        query = "SELECT id FROM models WHERE local_path IS NOT NULL ORDER BY last_used_unix DESC, id"
        async with self._reader.execute(query) as cursor:
            self.downloaded = tuple([str(row[0]) async for row in cursor])


def _row(found: aiosqlite.Row) -> ModelRow:
    facts = dict(found)
    return ModelRow(**{**facts, "files": json.loads(facts["files"]), "aliases": json.loads(facts["aliases"])})


def _values(origin: Origin) -> tuple[str, str, str, str]:
    return origin.provider, origin.reference, origin.file, origin.revision


def _unknown(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{name} is not in the model catalog of this node")
