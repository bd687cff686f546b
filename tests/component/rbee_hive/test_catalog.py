"""The model catalog on a real disk: its rows, their files, their names."""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from importlib import resources
from pathlib import Path

import anyio
import pytest

from rbee_hive.domain.models.model_paths import Origin
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.files import ModelFacts, embedded_model, inspect
from rbee_shared.contracts.models import ModelFileRow, RegisterRequest
from rbee_shared.errors import AlreadyExistsError, InvalidRequestError, ModelNotFoundError
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.sqlite import Quarantined

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
BUILTIN = Origin("builtin", "storyteller")


@pytest.fixture
def moved() -> list[Quarantined]:
    return []


@pytest.fixture
async def catalog(tmp_path: Path, moved: list[Quarantined]) -> AsyncGenerator[ModelCatalog]:
    async with ModelCatalog.open(tmp_path / "models.db", moved.append) as opened:
        yield opened


def facts(path: str = "/models/tinyllama.Q4_K_M.gguf", *, quant: str = "Q4_K_M", parts: int = 1) -> ModelFacts:
    files = tuple(ModelFileRow(path=f"{path}{n or ''}", size_bytes=100, sha256=f"{n:064x}") for n in range(parts))
    return ModelFacts(Path(path), files, name="TinyLlama", architecture="llama", quant=quant)


async def test_a_model_is_found_by_id_by_reference_and_after_a_restart(tmp_path: Path) -> None:
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as first:
        await first.put(BUILTIN, await inspect(str(embedded_model()), roots=None), model_id="storyteller")
    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as second:
        assert second.downloaded == ("storyteller",)
        by_id, by_reference = await second.find("storyteller"), await second.find("builtin:storyteller")

    assert by_id == by_reference
    assert by_id.size_bytes == (await anyio.Path(by_id.local_path or "").stat()).st_size
    assert (by_id.architecture, by_id.name) == ("llama", "rbee storyteller")


async def test_an_unknown_model_is_said(catalog: ModelCatalog) -> None:
    for text in (
        f"hf:{REPO}",
        "HF:author/minillama",
        "nothing",
        "file:/no/such.gguf",
        f"https://h/x#sha256={'0' * 64}",
    ):
        with pytest.raises(ModelNotFoundError):
            await catalog.find(text)
    with pytest.raises(InvalidRequestError):
        await catalog.find("this is: no reference")


async def test_a_registered_row_becomes_the_row_of_what_was_fetched_for_it(catalog: ModelCatalog) -> None:
    order = RegisterRequest(id="tiny", name="Tiny", repo=REPO, architecture="llama", aliases=("t", "small"))
    registered = await catalog.register(order, parse_model_ref(order.repo))
    assert (registered.is_downloaded, registered.aliases, catalog.downloaded) == (False, ("small", "t"), ())
    assert await catalog.find(f"hf:{REPO}") == registered

    origin = Origin("hf", REPO, "tinyllama.Q4_K_M.gguf", "a" * 40)
    fetched = await catalog.put(origin, facts(parts=2), model_id="tiny")

    assert (fetched.id, fetched.name, fetched.quant, len(fetched.files)) == ("tiny", "Tiny", "Q4_K_M", 2)
    assert fetched.size_bytes == 200
    assert fetched.sha256 not in {None, *(part.sha256 for part in fetched.files)}
    assert (await catalog.find("small")).id == "tiny"
    assert catalog.downloaded == ("tiny",)
    for text in (f"hf:{REPO}", f"{REPO}:q4_k_m", f"{REPO}:{origin.file}@aaaaaaa", fetched.canonical_ref):
        assert (await catalog.find(text)).id == "tiny", text
    for text in (f"{REPO}:Q8_0", f"{REPO}@bbbbbbb", f"{REPO}@main"):
        with pytest.raises(ModelNotFoundError):
            await catalog.find(text)


async def test_of_several_files_of_a_repository_the_usual_one_is_meant(catalog: ModelCatalog) -> None:
    for quant in ("Q8_0", "Q4_K_M", "Q2_K"):
        await catalog.put(Origin("hf", REPO, f"x.{quant}.gguf", "a" * 40), facts(f"/m/x.{quant}.gguf", quant=quant))

    assert (await catalog.find(REPO)).quant == "Q4_K_M"
    assert (await catalog.find(f"{REPO}:Q2_K")).id == "x.Q2_K"


async def test_no_name_means_two_models(catalog: ModelCatalog) -> None:
    order = RegisterRequest(id="one", repo=REPO, aliases=("uno",))
    await catalog.register(order, parse_model_ref(REPO))
    await catalog.put(Origin("file", "/m/a.gguf"), facts("/m/a.gguf"), model_id="a")

    with pytest.raises(AlreadyExistsError, match="as one"):
        await catalog.register(order.model_copy(update={"id": "two"}), parse_model_ref(REPO))
    with pytest.raises(AlreadyExistsError, match="for one"):
        await catalog.register(RegisterRequest(id="uno", repo="o/other"), parse_model_ref("o/other"))
    for taken in ("a", "one", "uno"):
        with pytest.raises(AlreadyExistsError):
            await catalog.put(Origin("file", "/m/b.gguf"), facts("/m/b.gguf"), model_id=taken)
    for taken in ("one", "uno"):
        with pytest.raises(AlreadyExistsError):
            await catalog.change("a", name="never", aliases=("fresh", taken))
    assert (await catalog.get("a")).name == "TinyLlama", "the change was undone as a whole"
    assert (await catalog.get("a")).aliases == ()

    again = await catalog.change("one", aliases=("uno", "eins"), pinned=True)
    assert (again.aliases, again.pinned) == (("eins", "uno"), True)
    await catalog.remove("one")
    await catalog.change("a", aliases=("uno",))
    assert (await catalog.get("uno")).id == "a"


async def test_models_with_the_same_stem_get_numbers(catalog: ModelCatalog) -> None:
    for place in ("a", "b"):
        path = f"/{place}/m-00001-of-00002.gguf"
        await catalog.put(Origin("file", path), facts(path))

    assert [row.id for row in await catalog.rows()] == ["m", "m-2"]


async def test_uses_are_counted_and_the_last_used_comes_first(catalog: ModelCatalog) -> None:
    for name in ("a", "b"):
        await catalog.put(Origin("file", f"/m/{name}.gguf"), facts(f"/m/{name}.gguf"))
    await catalog.note_use("b")
    await catalog.put(Origin("file", "/m/c.gguf"), facts("/m/c.gguf"))

    row = await catalog.get("b")
    assert (row.use_count, row.last_used_unix is not None) == (1, True)
    assert catalog.downloaded == ("b", "a", "c")


async def test_a_catalog_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    first = resources.files("rbee_hive.models").joinpath("sql", "0001_models.sql").read_text()
    with closing(sqlite3.connect(tmp_path / "models.db")) as db:
        db.executescript(f"{first}; PRAGMA application_id = {0x72626D64}; PRAGMA user_version = 1;")
        db.execute("INSERT INTO models VALUES ('a', 'file', '/m/a.gguf', '', '', '/m/a.gguf', 7, 1728508603)")
        db.commit()

    async with ModelCatalog.open(tmp_path / "models.db", lambda _: None) as catalog:
        row = await catalog.get("a")

    assert (row.local_path, row.size_bytes, row.downloaded_at_unix) == ("/m/a.gguf", 7, 1728508603)
    assert row.files == (ModelFileRow(path="/m/a.gguf", size_bytes=7),)


async def test_the_query_of_the_oldest_document_works(tmp_path: Path, catalog: ModelCatalog) -> None:
    await catalog.put(Origin("hf", REPO, "x.gguf", "c" * 40), facts("/models/tinyllama-q4.gguf"))
    with closing(sqlite3.connect(tmp_path / "models.db")) as db:
        found = db.execute("SELECT local_path FROM models WHERE reference = ? AND provider = 'hf'", (REPO,)).fetchall()

    assert found == [("/models/tinyllama-q4.gguf",)]


async def test_a_damaged_catalog_is_moved_aside(tmp_path: Path, moved: list[Quarantined]) -> None:
    (tmp_path / "models.db").write_bytes(b"scribble" * 1000)
    async with ModelCatalog.open(tmp_path / "models.db", moved.append) as catalog:
        assert await catalog.rows() == ()

    assert len(moved) == 1
    assert moved[0].moved_to.read_bytes() == b"scribble" * 1000


async def test_writers_side_by_side_lose_nothing(catalog: ModelCatalog) -> None:
    async def put(number: int) -> None:
        path = f"/{number}/m.gguf"
        await catalog.put(Origin("file", path), facts(path))
        await catalog.note_use(f"m-{number}" if number > 1 else "m")

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(put, number)

    assert len(await catalog.rows()) == len(catalog.downloaded) == 40


async def test_a_branch_that_was_asked_for_is_found_again(catalog: ModelCatalog) -> None:
    await catalog.put(Origin("hf", REPO, "x.gguf", "a" * 40), facts("/m/x.gguf"), asked_revision="main")

    assert (await catalog.find(f"{REPO}@main")).revision == "a" * 40
    with pytest.raises(ModelNotFoundError):
        await catalog.find(f"{REPO}@dev")


async def test_a_url_with_another_hash_is_another_file(catalog: ModelCatalog) -> None:
    row = await catalog.put(Origin("url", "https://h/x.gguf"), facts("/m/x.gguf"))

    assert (await catalog.find(f"https://h/x.gguf#sha256={row.sha256}")).id == row.id
    with pytest.raises(ModelNotFoundError):
        await catalog.find(f"https://h/x.gguf#sha256={'f' * 64}")


async def test_what_is_registered_later_becomes_another_name_of_what_is_there(catalog: ModelCatalog) -> None:
    origin = Origin("hf", REPO, "x.gguf", "a" * 40)
    await catalog.put(origin, facts("/m/x.gguf"))
    order = RegisterRequest(id="tiny", repo=REPO, aliases=("t",))
    await catalog.register(order, parse_model_ref(REPO))

    row = await catalog.put(origin, facts("/m/x.gguf"), model_id="tiny")

    assert (row.id, row.aliases) == ("x", ("t", "tiny"))
    assert (await catalog.find("tiny")).is_downloaded
    assert len(await catalog.rows()) == 1
    await catalog.require_usable("x", origin)
    with pytest.raises(AlreadyExistsError):
        await catalog.require_usable("tiny", Origin("file", "/m/other.gguf"))


async def test_a_cancelled_write_leaves_the_next_one_free(catalog: ModelCatalog) -> None:
    for number in range(60):
        with anyio.move_on_after(number / 20_000):
            await catalog.put(Origin("file", f"/{number}/m.gguf"), facts(f"/{number}/m.gguf"))
    for name in [row.id for row in await catalog.rows()]:
        await catalog.note_use(name)
    with pytest.raises(ModelNotFoundError):
        await catalog.note_files("none", (), None)
    await catalog.put(Origin("file", "/last.gguf"), facts("/last.gguf"))
