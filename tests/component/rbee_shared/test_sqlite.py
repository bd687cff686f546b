"""Catalog files: made, upgraded, checked; a damaged one is kept and said aloud."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from rbee_shared.errors import DiskFullError, NotSupportedError
from rbee_shared.sqlite import Quarantined, open_database

_APPLICATION_ID = 0x7262_7465


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    directory = tmp_path / "sql"
    directory.mkdir()
    (directory / "0001_words.sql").write_text("CREATE TABLE words (word TEXT PRIMARY KEY, filler TEXT)")
    return directory


def _no_damage(moved: Quarantined) -> None:
    pytest.fail(str(moved))


async def _add(path: Path, migrations: Path, word: str) -> list[Quarantined]:
    moved: list[Quarantined] = []
    async with open_database(
        path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=moved.append
    ) as db:
        await db.execute("INSERT OR IGNORE INTO words VALUES (?, ?)", (word, "x" * 5000))
    return moved


async def _words(path: Path, migrations: Path) -> list[str]:
    async with (
        open_database(path, application_id=_APPLICATION_ID, migrations=migrations, quarantined=_no_damage) as db,
        db.execute("SELECT word FROM words ORDER BY word") as rows,
    ):
        return [row["word"] async for row in rows]


async def test_what_was_written_is_there_after_reopening(tmp_path: Path, migrations: Path) -> None:
    assert await _add(tmp_path / "a.db", migrations, "bee") == []
    assert await _words(tmp_path / "a.db", migrations) == ["bee"]
    assert (tmp_path / "a.db").stat().st_mode & 0o077 == 0


async def test_an_older_file_is_upgraded_and_keeps_its_rows(tmp_path: Path, migrations: Path) -> None:
    await _add(tmp_path / "a.db", migrations, "bee")
    (migrations / "0002_colour.sql").write_text("ALTER TABLE words ADD COLUMN colour TEXT DEFAULT 'yellow'")

    async with (
        open_database(
            tmp_path / "a.db", application_id=_APPLICATION_ID, migrations=migrations, quarantined=_no_damage
        ) as db,
        db.execute("SELECT word, colour FROM words") as rows,
    ):
        assert [tuple(row) async for row in rows] == [("bee", "yellow")]


async def test_a_failing_upgrade_changes_nothing(tmp_path: Path, migrations: Path) -> None:
    await _add(tmp_path / "a.db", migrations, "bee")
    broken = migrations / "0002_broken.sql"
    broken.write_text("ALTER TABLE words ADD COLUMN colour TEXT; CREATE TABLE words (again TEXT)")
    with pytest.raises(Exception, match="already exists"):
        await _words(tmp_path / "a.db", migrations)
    broken.unlink()

    assert await _words(tmp_path / "a.db", migrations) == ["bee"]


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path, migrations: Path) -> None:
    await _add(tmp_path / "a.db", migrations, "bee")
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("PRAGMA user_version = 9")

    with pytest.raises(NotSupportedError, match="newer rbee"):
        await _words(tmp_path / "a.db", migrations)
    assert not [name for name in os.listdir(tmp_path) if "corrupt" in name]  # noqa: PTH208


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xa5" * 4096
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
        db.commit()


def _text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


@pytest.mark.parametrize("damage", [_truncate, _zero, _scribble, _empty, _foreign, _text])
async def test_a_damaged_file_is_kept_and_said_aloud(tmp_path: Path, migrations: Path, damage: object) -> None:
    path = tmp_path / "a.db"
    for word in ("ant", "bee", "cat", "dog"):
        await _add(path, migrations, word)
    assert callable(damage)
    damage(path)
    bytes_before = path.read_bytes()

    moved = await _add(path, migrations, "eel")

    assert [note.database for note in moved] == [path]
    assert moved[0].moved_to.name.startswith("a.db.corrupt-")
    assert moved[0].moved_to.read_bytes() == bytes_before
    assert str(moved[0].moved_to) in str(moved[0])
    assert await _words(path, migrations) == ["eel"]


async def test_many_open_a_new_file_at_once(tmp_path: Path, migrations: Path) -> None:
    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(_add, tmp_path / "a.db", migrations, f"word-{number:02}")

    assert len(await _words(tmp_path / "a.db", migrations)) == 12


async def test_a_directory_in_its_place_is_said(tmp_path: Path, migrations: Path) -> None:
    (tmp_path / "a.db").mkdir()
    (tmp_path / "a.db" / "x").touch()

    with pytest.raises(DiskFullError, match=r"a\.db"):
        await _words(tmp_path / "a.db", migrations)
