"""The nodes of the cluster and their devices, on disk: what survives a restart of the queen."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import aiosqlite
import anyio

from rbee_shared.contracts.nodes import Devices, Transport
from rbee_shared.sqlite import Quarantined, open_database, transaction

_APPLICATION_ID = 0x72626551  # "rbeQ"


@dataclass(frozen=True)
class NodeRow:
    """One node. `last_seen_unix` is in seconds."""

    name: str
    transport: Transport
    last_seen_unix: int | None


class HiveCatalog:
    """Made by `open`."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._writing = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, quarantined: Callable[[Quarantined], None]) -> AsyncGenerator["HiveCatalog"]:
        """Open the catalog at `path`, creating or upgrading it first; closed on leaving the block."""
        migrations = resources.files("queen_rbee") / "sql"
        async with open_database(
            path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=quarantined
        ) as db:
            yield cls(db, path)

    async def begin_epoch(self) -> int:
        """Count one more start of a queen; larger than every epoch before."""
        cursor = await self._db.execute("INSERT INTO epochs (begun_unix) VALUES (?)", (int(time.time()),))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    async def nodes(self) -> tuple[NodeRow, ...]:
        """All nodes, ordered by name."""
        rows = await self._db.execute_fetchall("SELECT name, transport, last_seen_unix FROM hives ORDER BY name")
        return tuple(NodeRow(row["name"], row["transport"], row["last_seen_unix"]) for row in rows)

    async def add(self, name: str, *, transport: Transport) -> None:
        """Add a node; one that is there stays as it is."""
        async with transaction(self._db, self._writing, self._path):
            await self._db.execute(
                "INSERT OR IGNORE INTO hives (name, transport, added_at_unix) VALUES (?, ?, ?)",
                (name, transport, int(time.time())),
            )

    async def seen(self, name: str, devices: Devices) -> None:
        """Note that the node answered, and what it has now."""
        now = int(time.time())
        rows = [(name, "cpu", "cpu", devices.cpu.name, devices.cpu.ram_bytes)]
        rows += [(name, gpu.id, gpu.backend, gpu.name, gpu.vram_bytes) for gpu in devices.gpus]
        async with transaction(self._db, self._writing, self._path):
            await self._db.execute(
                "INSERT INTO hives (name, transport, added_at_unix, last_seen_unix) VALUES (?, 'local', ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET last_seen_unix = excluded.last_seen_unix",
                (name, now, now),
            )
            await self._db.execute("DELETE FROM devices WHERE hive = ?", (name,))
            await self._db.executemany("INSERT INTO devices VALUES (?, ?, ?, ?, ?)", rows)
