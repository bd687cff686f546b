"""The worker catalog: which builds of llama.cpp this node has. On disk, so it survives restarts.

What it says and what lies in the builds' directory are brought together when it is opened: a lost catalog is made anew
from the directories. A build whose directory has vanished later is noticed when somebody wants it.
"""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread

from rbee_hive.builds import files as build_files
from rbee_hive.domain.builds.build_plan import Target, choose
from rbee_shared.contracts.provisions import BuildKind, BuildRow
from rbee_shared.errors import NotFoundError
from rbee_shared.sqlite import Quarantined, open_database, transaction

_LOG = logging.getLogger("rbee.hive.builds")
_APPLICATION_ID = 0x7262_776B  # "rbwk"
_COLUMNS = (
    "id", "kind", "version", "path", "backends", "features", "python", "platform", "made_at_unix", "size_bytes",
    "source",
)  # fmt: skip
_LISTS = ("backends", "features")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM builds ORDER BY id"  # noqa: S608 - constants
_MARKS = ", ".join("?" * len(_COLUMNS))
_PUT = f"INSERT OR REPLACE INTO builds ({', '.join(_COLUMNS)}) VALUES ({_MARKS})"  # noqa: S608 - constants


class WorkerCatalog:
    """Rows of `workers.db`. Made by `open`."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._writing = anyio.Lock()  # a transaction on the one connection would take others' statements in

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, workers: Path, quarantined: Callable[[Quarantined], None]
    ) -> AsyncGenerator["WorkerCatalog"]:
        """Open the catalog at `path`, made or upgraded first, and complete it from the directory `workers`."""
        migrations = files("rbee_hive.builds").joinpath("sql")
        async with open_database(
            path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=quarantined
        ) as db:
            catalog = cls(db, path)
            await catalog._adopt(await anyio.to_thread.run_sync(build_files.scan, workers))
            yield catalog

    async def rows(self) -> tuple[BuildRow, ...]:
        """Every build, outdated ones too, ordered by id."""
        async with self._db.execute(_SELECT) as cursor:
            return tuple([_row(values) async for values in cursor])

    async def get(self, row_id: str) -> BuildRow:
        """The row of that id.

        Raises:
            NotFoundError: there is none.
        """
        for row in await self.rows():
            if row.id == row_id:
                return row
        raise NotFoundError(
            f"there is no worker build {row_id[:64]!r} on this node",
            hint="`rbee-hive builds list` shows those there are.",
        )

    async def for_kind(self, kind: BuildKind, target: Target) -> BuildRow | None:
        """The build that a worker of that kind is to run here, its directory seen a moment ago; None without one."""
        while (row := choose(await self.rows(), kind, target)) is not None:
            if await anyio.to_thread.run_sync(build_files.is_there, row):
                return row
            _LOG.warning("worker build %s is gone from %s: dropped from the catalog", row.id, row.path)
            await self.remove(row.id)
        return None

    async def put(self, row: BuildRow) -> None:
        """Catalog a build in place of what had its id."""
        async with transaction(self._db, self._writing, self._path):
            await self._db.execute(_PUT, _values(row))

    async def remove(self, row_id: str) -> None:
        """Forget it; harmless when it is not there."""
        async with transaction(self._db, self._writing, self._path):
            await self._db.execute("DELETE FROM builds WHERE id = ?", (row_id,))

    async def environment(self) -> str | None:
        """The fingerprint of the hive's own environment when its rows were written; None before the first time."""
        async with self._db.execute("SELECT fingerprint FROM environment") as cursor:
            found = await cursor.fetchone()
        return str(found["fingerprint"]) if found is not None else None

    async def put_environment(self, fingerprint: str, rows: Iterable[BuildRow]) -> None:
        """Replace what is known of the hive's own environment."""
        async with transaction(self._db, self._writing, self._path):
            await self._db.execute("DELETE FROM builds WHERE source = 'environment'")
            await self._db.executemany(_PUT, [_values(row) for row in rows])
            await self._db.execute("INSERT OR REPLACE INTO environment VALUES (1, ?)", (fingerprint,))

    async def _adopt(self, found: Iterable[BuildRow]) -> None:
        known = {row.id: row.path for row in await self.rows()}
        for row in found:
            if known.get(row.id) != row.path:
                _LOG.warning("worker build %s lies in %s and was not in the catalog: added", row.id, row.path)
                await self.put(row)


def _row(values: aiosqlite.Row) -> BuildRow:
    fields = dict(values)
    return BuildRow(**fields | {name: tuple(json.loads(fields[name])) for name in _LISTS})


def _values(row: BuildRow) -> tuple[object, ...]:
    fields = row.model_dump() | {name: json.dumps(getattr(row, name)) for name in _LISTS}
    return tuple(fields[name] for name in _COLUMNS)
