"""The model catalog on a real disk, and the files it takes."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from rbee_hive.model_catalog import ModelCatalog
from rbee_hive.model_files import embedded_model, inspect
from rbee_shared.errors import ForbiddenError, InvalidRequestError, ModelInvalidError, ModelNotFoundError
from rbee_shared.sqlite import Quarantined


@pytest.fixture
def moved() -> list[Quarantined]:
    return []


@pytest.fixture
async def catalog(tmp_path: Path, moved: list[Quarantined]) -> AsyncGenerator[ModelCatalog]:
    async with ModelCatalog.open(tmp_path / "models.db", moved.append) as opened:
        yield opened


def _gguf(path: Path, size: int = 100) -> Path:
    path.write_bytes(b"GGUF" + bytes(size - 4))
    return path


async def test_a_model_is_found_by_id_by_reference_and_after_a_restart(tmp_path: Path) -> None:
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as first:
        await first.add_embedded(await inspect(str(embedded_model()), roots=None))
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as second:
        assert second.ids == ("storyteller",)
        by_id, by_reference = await second.find("storyteller"), await second.find("builtin:storyteller")

    assert by_id == by_reference
    assert by_id.size_bytes == (await anyio.Path(by_id.local_path).stat()).st_size


async def test_an_unknown_model_is_said(catalog: ModelCatalog) -> None:
    for text in ("hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "HF:author/minillama", "nothing", "file:/no/such.gguf"):
        with pytest.raises(ModelNotFoundError):
            await catalog.find(text)
    with pytest.raises(InvalidRequestError):
        await catalog.find("this is: no reference")


async def test_importing_a_path_twice_is_one_row_with_its_size_of_now(tmp_path: Path, catalog: ModelCatalog) -> None:
    path = _gguf(tmp_path / "a.gguf")
    first = await catalog.add_file(await inspect(str(path), roots=None))
    _gguf(path, 200)
    second = await catalog.add_file(await inspect(str(path), roots=None))

    assert (first.id, first.provider, first.size_bytes) == ("a", "file", 100)
    assert (second.id, second.size_bytes) == ("a", 200)
    assert await catalog.find(f"file:{path}") == second


async def test_many_imports_at_once_get_ids_of_their_own(tmp_path: Path, catalog: ModelCatalog) -> None:
    async def add(number: int) -> None:
        directory = anyio.Path(tmp_path / str(number))
        await directory.mkdir()
        path = _gguf(Path(directory) / "same.gguf")
        await catalog.add_file(await inspect(str(path), roots=None))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(add, number)

    assert len(set(catalog.ids)) == 20


async def test_a_damaged_catalog_is_moved_aside(tmp_path: Path, moved: list[Quarantined]) -> None:
    (tmp_path / "models.db").write_bytes(b"not a database" * 100)
    async with ModelCatalog.open(tmp_path / "models.db", moved.append) as catalog:
        assert catalog.ids == ()
    assert moved[0].moved_to.exists()


async def test_files_outside_the_roots_are_refused_also_through_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "elsewhere"
    await anyio.Path(inside).mkdir()
    await anyio.Path(outside).mkdir()
    target = _gguf(outside / "a.gguf")
    await anyio.Path(inside / "link.gguf").symlink_to(target)

    for path in (target, inside / "link.gguf", inside / ".." / "elsewhere" / "a.gguf"):
        with pytest.raises(ForbiddenError, match="model_roots|outside"):  # noqa: RUF043
            await inspect(str(path), roots=(inside,))
    assert (await inspect(str(_gguf(inside / "b.gguf")), roots=(inside,))).size_bytes == 100


async def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "text.gguf").write_text("once upon a time")
    for name in ("empty.gguf", "text.gguf", ""):
        with pytest.raises(ModelInvalidError):
            await inspect(str(tmp_path / name), roots=None)
    with pytest.raises(ModelNotFoundError):
        await inspect(str(tmp_path / "missing.gguf"), roots=None)
    for path in ("relative.gguf", "/nul\0"):
        with pytest.raises(InvalidRequestError):
            await inspect(path, roots=None)
