"""Models on a real disk that change behind the catalog's back."""

import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.support.models import storyteller

from rbee_hive.domain.models.model_paths import Origin
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.files import inspect
from rbee_hive.models.library import ModelLibrary
from rbee_shared.contracts.models import ImportRequest, ModelRow
from rbee_shared.errors import (
    ChecksumMismatchError,
    ForbiddenError,
    InvalidRequestError,
    ModelInvalidError,
    ModelNotFoundError,
)
from rbee_shared.narration import Narration, Narrator

HASH = hashlib.sha256(storyteller()).hexdigest()


@pytest.fixture
def said() -> list[Narration]:
    return []


@pytest.fixture
async def library(tmp_path: Path, said: list[Narration]) -> AsyncGenerator[ModelLibrary]:
    (tmp_path / "models").mkdir()
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as catalog:
        yield ModelLibrary(catalog, tmp_path / "models", (tmp_path / "extra",), Narrator("hive", said.append))


async def fetched(library: ModelLibrary) -> ModelRow:
    """As a download leaves it."""
    path = library.directory / "hf" / "o" / "r" / ("a" * 40) / "x.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(storyteller())
    return await library.catalog.put(
        Origin("hf", "o/r", "x.gguf", "a" * 40), await inspect(str(path), roots=None, hashes={"x.gguf": HASH})
    )


def on_disk(row: ModelRow) -> Path:
    return Path(row.local_path or "")


def touch(path: str, *, ns: int = 1) -> None:
    os.utime(path, ns=(ns, ns))


async def test_a_fetched_file_is_believed_as_long_as_nobody_touched_it(library: ModelLibrary) -> None:
    row = await fetched(library)
    assert await library.at_hand("x") == await library.ready("hf:o/r") == row

    touch(row.local_path or "")
    assert await library.at_hand("x") is None
    with pytest.raises(ChecksumMismatchError, match="touched"):
        await library.ready("x")
    again = await library.ready("x", may_hash=True)
    assert (again.sha256, again.files[0].modified_ns) == (HASH, 1), "it was hashed, and its new time noted"
    assert await library.at_hand("x") == again


@pytest.mark.parametrize("damage", ["flipped", "longer"])
async def test_a_fetched_file_that_changed_is_not_used(library: ModelLibrary, damage: str) -> None:
    row = await fetched(library)
    data = bytearray(storyteller())
    data[-1] ^= 1
    on_disk(row).write_bytes(bytes(data) + (b"" if damage == "flipped" else b"x"))

    with pytest.raises(ChecksumMismatchError, match="has changed"):
        await library.ready("x", may_hash=True)
    check = await library.verify("x")
    assert (check.ok, check.files[0].expected_sha256) == (False, HASH)
    assert "SHA-256" in (check.files[0].problem or "")


async def test_what_failed_a_verification_is_not_used_although_it_looks_untouched(library: ModelLibrary) -> None:
    path = on_disk(await fetched(library))
    stat = path.stat()
    path.write_bytes(b"x" + storyteller()[1:])
    touch(str(path), ns=stat.st_mtime_ns)
    assert await library.at_hand("x") is not None, "size and time are as they were"

    assert not (await library.verify("x")).ok
    assert await library.at_hand("x") is None
    with pytest.raises(ChecksumMismatchError):
        await library.ready("x", may_hash=True)


async def test_a_file_that_is_gone_is_noticed_and_its_return_too(library: ModelLibrary, tmp_path: Path) -> None:
    row = await fetched(library)
    on_disk(row).rename(tmp_path / "away")
    assert not (await library.verify("x")).ok

    noticed = await library.look_up("x")
    assert noticed is not None
    assert not noticed.is_downloaded
    with pytest.raises(ModelNotFoundError) as refusal:
        await library.ready("x")
    assert refusal.value.hint == "Fetch it again: rbee-hive models download x"

    (tmp_path / "away").rename(on_disk(row))  # as when a disk is mounted again
    assert (await library.ready("x", may_hash=True)).sha256 == HASH


async def test_a_file_that_its_owner_replaced_is_read_anew(library: ModelLibrary, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(storyteller())
    order = ImportRequest(path=str(path), anywhere=True, id="mine", aliases=("own",))
    row = await library.take_in(order)
    assert (row.id, row.aliases, row.sha256) == ("mine", ("own",), None)
    assert (await library.verify("mine")).ok
    assert (await library.catalog.get("mine")).sha256 == HASH

    path.write_bytes(storyteller() + bytes(10))
    newer = await library.ready("own")
    assert (newer.id, newer.size_bytes, newer.sha256) == ("mine", row.size_bytes + 10, None)
    path.write_bytes(b"no model")
    with pytest.raises(ModelInvalidError):
        await library.ready("mine")
    path.unlink()
    with pytest.raises(ModelNotFoundError) as refusal:
        await library.ready("mine")
    assert "Put the file back" in refusal.value.hint
    path.write_bytes(storyteller())
    assert (await library.ready("mine")).id == "mine"


async def test_what_may_be_imported(library: ModelLibrary, tmp_path: Path) -> None:
    outside = tmp_path / "x.gguf"
    outside.write_bytes(storyteller())
    (library.directory / "link.gguf").symlink_to(outside)
    with pytest.raises(ForbiddenError, match="outside the directories"):
        await library.take_in(ImportRequest(path=str(library.directory / "link.gguf")))
    with pytest.raises(InvalidRequestError):
        await library.take_in(ImportRequest(path="x.gguf"))
    with pytest.raises(ModelNotFoundError):
        await library.take_in(ImportRequest(path=str(library.directory / "none.gguf")))
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "y.gguf").write_bytes(storyteller())
    assert (await library.take_in(ImportRequest(path=str(tmp_path / "extra" / "y.gguf")))).id == "y"


async def test_removing_deletes_only_what_is_ours_unpinned_and_unused(library: ModelLibrary, tmp_path: Path) -> None:
    row = await fetched(library)
    path = row.local_path or ""
    with pytest.raises(ForbiddenError, match="a worker uses"):
        await library.remove("x", files=True, in_use=lambda: {path})
    await library.catalog.change("x", pinned=True)
    with pytest.raises(ForbiddenError, match="pinned"):
        await library.remove("x", files=True, in_use=tuple)
    await library.catalog.change("x", pinned=False)
    removal = await library.remove("x", files=True, in_use=tuple)
    assert (removal.files_removed, removal.freed_bytes) == ((path,), row.size_bytes)
    assert list(library.directory.iterdir()) == []

    own = tmp_path / "own.gguf"
    own.write_bytes(storyteller())
    await library.take_in(ImportRequest(path=str(own), anywhere=True))
    with pytest.raises(ForbiddenError, match="does not delete"):
        await library.remove("own", files=True, in_use=tuple)
    assert (await library.remove("own", files=False, in_use=tuple)).files_removed == ()
    assert own.exists()
    await library.take_in_embedded()
    with pytest.raises(ForbiddenError, match="ships with rbee"):
        await library.remove("storyteller", files=False, in_use=tuple)
    with pytest.raises(ModelNotFoundError):
        await library.remove("own", files=False, in_use=tuple)


async def test_files_that_another_row_lists_stay(library: ModelLibrary) -> None:
    row = await fetched(library)
    await library.take_in(ImportRequest(path=row.local_path or "", id="same"))

    assert (await library.remove("x", files=True, in_use=tuple)).files_removed == ()
    assert on_disk(row).exists()


async def test_a_lost_catalog_is_made_anew_from_the_directory(library: ModelLibrary, said: list[Narration]) -> None:
    row = await fetched(library)
    (library.directory / "mine.gguf").write_bytes(storyteller())
    (library.directory / "broken.gguf").write_bytes(b"GGUF")
    (library.directory / "y.gguf.0123456789ab.partial").write_bytes(storyteller())
    await library.catalog.remove("x")

    assert await library.rebuild() == 2
    rows = {found.id: found for found in await library.catalog.rows()}
    assert set(rows) == {"x", "mine"}
    assert rows["x"].canonical_ref == row.canonical_ref
    assert [line.action for line in said] == ["rebuild"]
    assert await library.ready("hf:o/r") == rows["x"]
