"""Opens a SQLite catalog: checked, upgraded by numbered SQL files, and readable by its owner only.

Guarantees: a damaged file is moved aside and said aloud, never deleted and never half used; a file of a newer rbee is
refused and left as it is; any number of processes may open the same file at once.
"""

import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import aiosqlite
import anyio
import anyio.lowlevel
import anyio.to_thread
from typing_extensions import override

from rbee_shared.errors import DiskFullError, InternalError, NotSupportedError, RbeeError, RequestTimeoutError
from rbee_shared.file_lock import locked

_PRIVATE_FILE = 0o600
_BUSY_S = 5.0
_LOCK_S = 10.0
_LOCK_POLL_S = 0.02
_COMPANIONS = ("", "-wal", "-shm")
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DISK_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})


@dataclass(frozen=True)
class Quarantined:
    """A damaged database that was moved aside."""

    database: Path
    moved_to: Path
    why: str

    @override
    def __str__(self) -> str:
        return f"{self.database} was damaged ({self.why}): it is kept as {self.moved_to}, and a new one was made"


class _DamagedError(Exception):
    """The file is no database of ours; its text says why."""


@asynccontextmanager
async def open_database(
    path: Path, *, application_id: int, migrations: Traversable, quarantined: Callable[[Quarantined], None]
) -> AsyncGenerator[aiosqlite.Connection]:
    """The database at `path`, made or upgraded first; closed on leaving the block.

    Every statement commits by itself; several that belong together go between `BEGIN IMMEDIATE` and `COMMIT`.
    `migrations` is a directory of `NNNN_name.sql`; the number of the last one applied is the file's `user_version`.
    `quarantined` is called when a damaged file was moved aside.

    Raises:
        NotSupportedError: a newer rbee wrote it.
        DiskFullError: the disk is full or cannot be written.
        RequestTimeoutError: another process has held it for too long.
    """
    steps = await anyio.to_thread.run_sync(_read_migrations, migrations)
    moved = await anyio.to_thread.run_sync(_prepare, path, application_id, steps)
    if moved is not None:
        quarantined(moved)
    db = await aiosqlite.connect(path, isolation_level=None, timeout=_BUSY_S)
    try:
        db.row_factory = aiosqlite.Row
        await db.execute("PRAGMA foreign_keys = ON")
        yield db
    finally:
        with anyio.CancelScope(shield=True):  # its thread is no daemon: left open it would keep the process from ending
            await db.close()


@asynccontextmanager
async def reading(path: Path) -> AsyncGenerator[aiosqlite.Connection]:
    """A second connection to a database that is open already, for reads that no write may hold up."""
    db = await aiosqlite.connect(path, isolation_level=None, timeout=_BUSY_S)
    try:
        db.row_factory = aiosqlite.Row
        await db.execute("PRAGMA query_only = ON")
        yield db
    finally:
        with anyio.CancelScope(shield=True):  # as above
            await db.close()


@asynccontextmanager
async def transaction(db: aiosqlite.Connection, writing: anyio.Lock, path: Path) -> AsyncGenerator[None]:
    """One writer at a time, all of its statements or none; `path` is where `db` lies.

    Shielded: cut off in the middle a transaction would stay open, and every later one would fail. So nothing but
    statements belongs into the block.

    Raises:
        DiskFullError, RequestTimeoutError, InternalError: the database does not take it.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()  # who only writes could not be cancelled otherwise
    with told_as_ours(path), anyio.CancelScope(shield=True):
        async with writing:
            await db.execute("BEGIN IMMEDIATE")
            try:
                yield
                await db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    await db.execute("ROLLBACK")
                raise


def _read_migrations(directory: Traversable) -> list[str]:
    """The scripts in order; number N stands at N - 1, without a gap."""
    files = sorted((file for file in directory.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    numbers = [int(file.name.partition("_")[0]) for file in files]
    assert numbers == list(range(1, len(files) + 1)), f"migrations are not numbered without gaps: {numbers}"
    return [file.read_text(encoding="utf-8") for file in files]


def _prepare(path: Path, application_id: int, steps: list[str]) -> Quarantined | None:
    """Check and upgrade. Under a lock: two processes that switch a new file to WAL at once would fail."""
    with told_as_ours(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            try:
                _check_and_upgrade(path, application_id, steps)
            except _DamagedError as damage:
                moved = Quarantined(path, _move_aside(path), str(damage))
                _check_and_upgrade(path, application_id, steps)
                return moved
    return None


def _check_and_upgrade(path: Path, application_id: int, steps: list[str]) -> None:
    is_new = not path.exists()
    if not is_new and path.stat().st_size == 0:
        raise _DamagedError("it is empty")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE))
    with closing(sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)) as db, _damage_recognised():
        if not is_new:
            _check(db, application_id)
        db.execute("PRAGMA journal_mode = WAL")
        _upgrade(db, path, application_id, steps)


def _check(db: sqlite3.Connection, application_id: int) -> None:
    found = _pragma(db, "application_id")
    if found != application_id:
        raise _DamagedError(f"its application id is {found:#x}, not {application_id:#x}")
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _DamagedError(str(verdict))


def _upgrade(db: sqlite3.Connection, path: Path, application_id: int, steps: list[str]) -> None:
    version = _pragma(db, "user_version")
    if version > len(steps):
        raise NotSupportedError(
            f"{path} was written by a newer rbee (schema {version}, this one knows {len(steps)})",
            hint="Update rbee on this machine, or set RBEE_HOME to another directory.",
        )
    for number, script in enumerate(steps[version:], start=version + 1):
        # one transaction each: a process that is killed in the middle leaves the version before
        db.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {application_id:d}; "
            f"PRAGMA user_version = {number:d}; COMMIT;"
        )


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _move_aside(path: Path) -> Path:
    target = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
    for suffix in _COMPANIONS:  # the journal belongs to the file: a new file must not meet it
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    return target


@contextmanager
def _damage_recognised() -> Generator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _primary_code(error) in _DAMAGE_CODES:
            raise _DamagedError(str(error)) from None
        raise


@contextmanager
def told_as_ours(path: Path) -> Generator[None]:
    """Failures of the database at `path` as errors for people."""
    try:
        yield
    except OSError as error:
        raise DiskFullError(f"{path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise _as_rbee_error(path, error) from None


def _as_rbee_error(path: Path, error: sqlite3.Error) -> RbeeError:
    code = _primary_code(error)
    if code in _DISK_CODES:
        return DiskFullError(f"{path}: {error}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return RequestTimeoutError(f"{path} is held by another process: {error}")
    return InternalError(f"{path}: {error}")


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
