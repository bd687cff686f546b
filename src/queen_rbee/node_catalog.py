"""The nodes of the cluster, on disk: how they are reached, what they had, who their queen is.

What survives a restart of the queen. Every method is one transaction; a node that is not there is left alone.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
from pydantic import ValidationError

from queen_rbee.domain.nodes.node import KnownDevice, Node
from rbee_shared.contracts.nodes import Devices, NodeFault, Transport
from rbee_shared.errors import RbeeError
from rbee_shared.ids import new_secret
from rbee_shared.sqlite import Quarantined, open_database, transaction

_APPLICATION_ID = 0x72626551  # "rbeQ"
_ADDRESS = ("transport", "host", "port", "user", "key", "hive_port", "home", "installs")


class NodeCatalog:
    """Made by `open`."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._writing = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, quarantined: Callable[[Quarantined], None]) -> AsyncGenerator["NodeCatalog"]:
        """Open the catalog at `path`, creating or upgrading it first; closed on leaving the block."""
        migrations = resources.files("queen_rbee") / "sql"
        async with open_database(
            path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=quarantined
        ) as db:
            yield cls(db, path)

    async def begin_epoch(self) -> int:
        """A number larger than every one before, for a hive that she starts, takes over or welcomes again."""
        epoch = 0
        async with self._transaction():
            cursor = await self._db.execute("INSERT INTO epochs (begun_unix) VALUES (?)", (int(time.time()),))
            epoch = cursor.lastrowid or 0
        return epoch  # noqa: RET504 - outside the block, which a type checker takes for one that may swallow errors

    async def queen_id(self) -> str:
        """Who this queen is to her hives; made on first use, kept for ever."""
        async with self._transaction():
            await self._db.execute(
                "INSERT INTO queen (id) SELECT ? WHERE NOT EXISTS (SELECT * FROM queen)",
                (f"queen-{new_secret()[:16]}",),
            )
        rows = await self._db.execute_fetchall("SELECT id FROM queen")
        return str(next(iter(rows))["id"])

    async def nodes(self) -> tuple[Node, ...]:
        """All nodes, ordered by name."""
        models: dict[str, set[str]] = {}
        for row in await self._db.execute_fetchall("SELECT hive, name FROM models"):
            models.setdefault(row["hive"], set()).add(row["name"])
        devices: dict[str, list[KnownDevice]] = {}
        for row in await self._db.execute_fetchall("SELECT * FROM devices ORDER BY hive, id"):
            device = KnownDevice(row["id"], row["backend"], row["memory_bytes"], row["name"])
            devices.setdefault(row["hive"], []).append(device)
        rows = await self._db.execute_fetchall("SELECT * FROM hives ORDER BY name")
        return tuple(_node(row, models.get(row["name"], ()), tuple(devices.get(row["name"], ()))) for row in rows)

    async def add(self, name: str, *, transport: Transport) -> None:
        """Add a node; one that is there stays as it is."""
        async with self._transaction():
            await self._db.execute(
                "INSERT OR IGNORE INTO hives (name, transport, added_at_unix) VALUES (?, ?, ?)",
                (name, transport, int(time.time())),
            )

    async def put(self, node: Node) -> None:
        """Add a node, or change how it is reached; what is known of it stays."""
        values = [getattr(node, column) for column in _ADDRESS]
        columns, marks = ", ".join(_ADDRESS), ", ".join("?" * len(_ADDRESS))
        changes = ", ".join(f"{column} = excluded.{column}" for column in _ADDRESS)
        async with self._transaction():
            await self._db.execute(
                f"INSERT INTO hives (name, added_at_unix, {columns}) VALUES (?, ?, {marks})"  # noqa: S608 - own names
                f" ON CONFLICT (name) DO UPDATE SET {changes}, last_error = NULL",
                (node.name, int(time.time()), *values),
            )

    async def remove(self, name: str) -> None:
        """Forget a node and all that was known of it."""
        async with self._transaction():
            await self._db.execute("DELETE FROM hives WHERE name = ?", (name,))

    async def seen(self, name: str, devices: Devices, *, version: str | None = None) -> None:
        """The node answered, and this is what it has now."""
        rows = [("cpu", "cpu", devices.cpu.name, devices.cpu.ram_bytes)] if devices.cpu.offered else []
        rows += [(gpu.id, gpu.backend, gpu.name, gpu.vram_bytes) for gpu in devices.gpus]
        async with self._transaction():
            await self._db.execute(
                "UPDATE hives SET last_seen_unix = ?, last_error = NULL, version = coalesce(?, version) WHERE name = ?",
                (int(time.time()), version, name),
            )
            await self._db.execute("DELETE FROM devices WHERE hive = ?", (name,))
            await self._db.executemany(
                "INSERT INTO devices SELECT name, ?, ?, ?, ? FROM hives WHERE name = ?", [(*row, name) for row in rows]
            )

    async def note_heard(self, name: str, heard_unix: int) -> None:
        """When the node was last heard, in seconds."""
        await self._set(name, "last_seen_unix", heard_unix)

    async def learn_models(self, name: str, names: Iterable[str]) -> None:
        """Every name under which the node knows a model now."""
        async with self._transaction():
            await self._db.execute("DELETE FROM models WHERE hive = ?", (name,))
            await self._db.executemany(
                "INSERT OR IGNORE INTO models SELECT name, ? FROM hives WHERE name = ?",
                [(model, name) for model in names],
            )

    async def note_failure(self, name: str, error: RbeeError) -> None:
        """The node could not be used, and why."""
        fault = NodeFault(code=error.code, message=error.message, hint=error.hint, at_ms=time.time_ns() // 1_000_000)
        await self._set(name, "last_error", fault.model_dump_json())

    async def note_success(self, name: str) -> None:
        """The node could be used again."""
        await self._set(name, "last_error", None)

    async def note_version(self, name: str, version: str | None) -> None:
        await self._set(name, "version", version)

    async def note_serving(self, name: str, *, serving: bool) -> None:
        """Whether a hive of this queen runs there."""
        await self._set(name, "serving", int(serving))

    async def drain(self, name: str, *, drained: bool) -> None:
        """Whether it gets no new work."""
        await self._set(name, "drained", int(drained))

    async def _set(self, name: str, column: str, value: str | int | None) -> None:
        async with self._transaction():
            await self._db.execute(f"UPDATE hives SET {column} = ? WHERE name = ?", (value, name))  # noqa: S608 - own names

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[None]:
        async with transaction(self._db, self._writing, self._path):
            yield


def _node(row: Any, models: Iterable[str], devices: tuple[KnownDevice, ...]) -> Node:
    return Node(
        name=row["name"],
        transport=row["transport"],
        host=row["host"],
        port=row["port"],
        user=row["user"],
        key=row["key"],
        hive_port=row["hive_port"],
        home=row["home"],
        installs=bool(row["installs"]),
        drained=bool(row["drained"]),
        serving=bool(row["serving"]),
        version=row["version"],
        last_seen_unix=row["last_seen_unix"],
        last_error=_fault(row["last_error"]),
        models=frozenset(models),
        devices=devices,
    )


def _fault(text: str | None) -> NodeFault | None:
    try:
        return NodeFault.model_validate_json(text) if text else None
    except ValidationError:  # of another version of the queen: it was only ever a word for people
        return None
