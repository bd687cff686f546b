"""What a reference means, where a model lies, whether its files are the same: decided from names and numbers alone."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rbee_hive.domain.models.file_rules import FileState, combined_sha256, compare, split_names, unique_id
from rbee_hive.domain.models.model_choice import best_match
from rbee_hive.domain.models.model_paths import Origin, hub_path, origin_of, url_path
from rbee_shared.contracts.models import ModelProvisionRequest, ModelRow
from rbee_shared.errors import InvalidRequestError
from rbee_shared.model_ref import parse_model_ref

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HASH = "ab" * 32


def row(
    model_id: str, file: str = "", quant: str | None = None, *, revision: str = COMMIT, at: int | None = 1
) -> ModelRow:
    path = f"/m/{model_id}" if at is not None else None
    return ModelRow(
        id=model_id, provider="hf", reference="o/r", file=file, quant=quant, revision=revision,
        local_path=path, downloaded_at_unix=at,
    )  # fmt: skip


ROWS = (
    row("old", "x.Q8_0.gguf", "Q8_0", at=1),
    row("usual", "x.Q4_K_M.gguf", "Q4_K_M", at=2),
    row("new", "sub/x.Q8_0.gguf", "Q8_0", at=3, revision="f" * 40),
    row("registered", "main-file.gguf", at=None, revision="main"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/r", "usual"),
        ("hf:o/r:Q8_0", "new"),
        ("o/r:q8_0@0123456", "old"),
        ("o/r:x.Q8_0.gguf", "old"),
        ("o/r:sub/x.Q8_0.gguf", "new"),
        ("o/r@ffffffff", "new"),
        ("o/r@main", "registered"),
        ("o/r:MAIN-FILE.GGUF", "registered"),
        ("o/r@fff", None),
        ("o/r:Q8", None),
        ("o/r:x.q8_0.ggu", None),
        ("o/r@dev", None),
    ],
)
def test_which_row_is_meant(text: str, expected: str | None) -> None:
    found = best_match(ROWS, parse_model_ref(text))
    assert (found.id if found else None) == expected


def test_a_registered_row_is_meant_where_no_other_is_there() -> None:
    assert best_match([ROWS[3], row("gone", at=None)], parse_model_ref("o/r")) is not None


@pytest.mark.parametrize(
    ("text", "source", "wish", "revision", "sha256"),
    [
        ("hf:o/r:sub/x.gguf@refs/pr/1", "o/r", "sub/x.gguf", "refs/pr/1", None),
        ("HF:o/r@main", "o/r", "", "main", None),
        ("builtin:storyteller", "storyteller", "", "", None),
        ("file:/a@b:c.gguf", "/a@b:c.gguf", "", "", None),
        (f"https://h:8/x.gguf#sha256={HASH.upper()}", "https://h:8/x.gguf", "", "", HASH),
        ("http://h/x.gguf", "http://h/x.gguf", "", "", None),
    ],
)
def test_parts_of_a_reference(text: str, source: str, wish: str, revision: str, sha256: str | None) -> None:
    ref = parse_model_ref(text)
    assert (ref.source, ref.wish, ref.revision, ref.sha256) == (source, wish, revision, sha256)
    assert parse_model_ref(str(ref)) == ref


@pytest.mark.parametrize(
    "text",
    [
        "https://", "https://user:secret@h/x.gguf", "https://h/x.gguf#md5=1", f"https://h/x#sha256={HASH}0",
        "https://h/a b.gguf", "https://h/\n", "https://h/ä.gguf", "ftp://h/x.gguf",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_model(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_model_ref(text)


def test_a_place_tells_where_the_model_came_from() -> None:
    root = PurePosixPath("/home/u/.rbee/models")
    path = hub_path("o/r", COMMIT, PurePosixPath("Q8/x.gguf"))
    assert str(path) == f"hf/o/r/{COMMIT}/Q8/x.gguf"
    assert origin_of(root / path, root) == Origin("hf", "o/r", "Q8/x.gguf", COMMIT)
    for by_hand in ("x.gguf", "hf/x.gguf", "hf/o/r/x.gguf", str(url_path(HASH, "x.gguf"))):
        assert origin_of(root / by_hand, root) == Origin("file", f"{root}/{by_hand}")


def test_the_canonical_reference_means_its_row() -> None:
    for each in ROWS[:3]:
        assert best_match(ROWS, parse_model_ref(each.canonical_ref)) == each
    file = ModelRow(id="a", provider="file", reference="/a.gguf")
    assert (file.canonical_ref, file.is_downloaded) == ("file:/a.gguf", False)
    url = ModelRow(id="u", provider="url", reference="https://h/x.gguf")
    assert parse_model_ref(url.canonical_ref).source == url.reference


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, FileState.GONE),
        ((10, 5), FileState.SAME),
        ((10, 6), FileState.TOUCHED),
        ((9, 5), FileState.CHANGED),
    ],
)
def test_a_look_at_a_file(found: tuple[int, int] | None, expected: FileState) -> None:
    assert compare(10, 5, found) is expected
    assert compare(10, None, (10, 5)) is FileState.TOUCHED


def test_the_names_of_all_parts() -> None:
    assert split_names("m-00002-of-00003.gguf") == tuple(f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    for alone in ("m.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-00001-of-99999.gguf", "m-1-of-2.gguf"):
        assert split_names(alone) == (alone,)


def test_one_hash_for_several_parts() -> None:
    assert combined_sha256(["a"]) == "a"
    assert combined_sha256(["a", "b"]) != combined_sha256(["b", "a"])
    assert combined_sha256(["a", None]) is combined_sha256([]) is None


@given(st.text(max_size=200), st.sets(st.text(max_size=20), max_size=5))
def test_an_id_is_safe_and_new(name: str, taken: set[str]) -> None:
    chosen = unique_id(PurePosixPath("/m") / name, taken)  # type: ignore[arg-type]
    assert chosen not in taken
    assert ModelRow(id=chosen, provider="file", reference="x").id == chosen
    assert chosen[0].isalnum()


def test_the_id_of_a_split_model_names_no_part() -> None:
    assert unique_id(PurePosixPath("/m/big-00001-of-00004.gguf"), ()) == "big"  # type: ignore[arg-type]


def test_an_order_to_provide_a_model_names_exactly_one() -> None:
    assert ModelProvisionRequest(model="a").chosen_model == "a"
    assert ModelProvisionRequest(model_ref="b").chosen_model == "b"
    for wrong in ({}, {"model": "a", "model_ref": "b"}):
        with pytest.raises(ValidationError, match="give model, or model_ref"):
            ModelProvisionRequest(**wrong)
