"""What the queen knows of hives, where her disk does not take it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from tests.support.queen_parts import queen_parts

from queen_rbee.hive_ending import HiveEnding
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.reach import Callback, DirectReach
from rbee_shared.clocks import Clocks
from rbee_shared.errors import InternalError, NodeUnreachableError
from rbee_shared.narration import Narrator


async def test_a_catalog_that_takes_nothing_ends_neither_the_queen_nor_a_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as group, queen_parts(tmp_path, group) as parts:
        contacts = parts.contacts
        await contacts.catalog.add("mac", transport="http")
        with closing(sqlite3.connect(tmp_path / "queen.db")) as other:
            other.executescript("CREATE TRIGGER full BEFORE UPDATE ON hives BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(InternalError):
            await contacts.catalog.note_success("mac")

        nobody = DirectReach(Callback("http://queen"), "127.0.0.1")
        entry = contacts.hives.put(HiveEntry("mac", "http://127.0.0.1:1", nobody, 1, own_url="http://127.0.0.1:1"))
        entry.heard.set()
        contacts.note_trouble("mac", NodeUnreachableError("silent"))
        contacts.note_trouble("mac", None)
        assert await HiveEnding(Clocks(), contacts, Narrator("queen", lambda _: None)).stop(entry)
        assert contacts.hives.get("mac") is None
        with anyio.fail_after(20):
            while caplog.text.count("does not take what is known of a hive") < 4:  # noqa: ASYNC110 - a log has no event
                await anyio.sleep(0.01)
