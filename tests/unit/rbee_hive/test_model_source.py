"""Which files of a repository make up a model, and which names never reach the disk."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rbee_hive.domain.models.model_source import Chosen, HubFile, RepoListing, choose_files, safe_relative_path
from rbee_hive.domain.models.quant_names import quant_of, split_part
from rbee_shared.errors import ModelInvalidError, NoGgufInRepoError


def _listing(*paths: str, repo: str = "o/tiny-GGUF") -> RepoListing:
    return RepoListing(repo, "c0ffee", tuple(HubFile(path, 10, "ab" * 32) for path in paths))


def _paths(chosen: Chosen) -> list[str]:
    return [file.path for file in chosen.files]


def _split(stem: str, count: int) -> list[str]:
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "Q4_K_M"),
        ("model-q4_k_m.gguf", "Q4_K_M"),
        ("model_Q8_0.gguf", "Q8_0"),
        ("Model-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("x-IQ4_NL.gguf", "IQ4_NL"),
        ("x-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("x.fp16.gguf", "F16"),
        ("x-BF16.gguf", "BF16"),
        ("gpt-oss-MXFP4.gguf", "MXFP4"),
        ("q8-distill.Q4_K_M.gguf", "Q4_K_M"),
        ("Q5_K_S/model.gguf", "Q5_K_S"),
        ("BF16/model-Q4_K_M-00001-of-00002.gguf", "Q4_K_M"),
        ("x-Q4_K_M_v2.gguf", "Q4_K_M"),
        ("qwen2-7b.gguf", None),
        ("Q4ever.gguf", None),
        ("model.gguf", None),
    ],
)
def test_a_quantization_is_read_from_a_name(path: str, quant: str | None) -> None:
    assert quant_of(path) == quant


@pytest.mark.parametrize(
    ("paths", "wish", "chosen"),
    [
        pytest.param(["a.Q2_K.gguf", "a.Q4_K_M.gguf", "a.Q8_0.gguf"], "", ["a.Q4_K_M.gguf"], id="the usual"),
        pytest.param(["a.Q8_0.gguf", "a.Q5_K_M.gguf", "a.F16.gguf"], "", ["a.Q5_K_M.gguf"], id="the nearest to it"),
        pytest.param(["weird.gguf"], "", ["weird.gguf"], id="the only one"),
        pytest.param(["b.gguf", "a.gguf", "x/0.gguf"], "", ["a.gguf"], id="the first, those at the top before others"),
        pytest.param(["b-Q4_K_M.gguf", "a-Q4_K_M.gguf"], "", ["a-Q4_K_M.gguf"], id="the first of two"),
        pytest.param(["mmproj-a-f16.gguf", "a-Q8_0.gguf"], "", ["a-Q8_0.gguf"], id="never a projector"),
        pytest.param(["a.imatrix.gguf", "a-Q8_0.gguf"], "", ["a-Q8_0.gguf"], id="never a matrix"),
        pytest.param(["a-lora-F16.gguf", "a-Q2_K.gguf"], "", ["a-Q2_K.gguf"], id="never an adapter"),
        pytest.param(
            ["a-imatrix-Q4_0.gguf", "z.gguf"], "", ["a-imatrix-Q4_0.gguf"], id="made with a matrix is a model"
        ),
        pytest.param(["a.Q4_K.gguf", "a.Q4_K_M.gguf"], "q4_k", ["a.Q4_K.gguf"], id="whole, in any case"),
        pytest.param(["a-UD-Q4_K_XL.gguf"], "Q4_K_XL", ["a-UD-Q4_K_XL.gguf"], id="UD- may be left out"),
        pytest.param(["a-UD-Q2_K.gguf", "a-Q2_K.gguf"], "Q2_K", ["a-Q2_K.gguf"], id="but the plain one wins"),
        pytest.param(["a.f16.gguf"], "FP16", ["a.f16.gguf"], id="FP16 is F16"),
        pytest.param(["x/a.gguf", "a.gguf"], "x/a.gguf", ["x/a.gguf"], id="a path"),
        pytest.param(["mmproj.gguf", "a.gguf"], "mmproj.gguf", ["mmproj.gguf"], id="a companion that is named"),
        pytest.param(["README.md", "A.GGUF"], "", ["A.GGUF"], id="capitals"),
        pytest.param(_split("a-Q4_K_M", 3)[::-1], "", _split("a-Q4_K_M", 3), id="parts in order"),
        pytest.param(_split("d/a-Q8_0", 2), "d/a-Q8_0-00002-of-00002.gguf", _split("d/a-Q8_0", 2), id="one part: all"),
        pytest.param([*_split("a-Q4_0", 2), "b-Q8_0.gguf"], "Q4_0", _split("a-Q4_0", 2), id="a split one by quant"),
    ],
)
def test_the_right_files_are_chosen(paths: list[str], wish: str, chosen: list[str]) -> None:
    choice = choose_files(_listing(*paths), wish)

    assert _paths(choice) == chosen
    assert choice.size_bytes == 10 * len(chosen)
    assert choice.reason


def test_a_model_that_learned_by_lora_is_no_adapter() -> None:
    listing = _listing("alpaca-lora-65b.Q4_K_M.gguf", repo="TheBloke/alpaca-lora-65B-GGUF")
    assert _paths(choose_files(listing)) == ["alpaca-lora-65b.Q4_K_M.gguf"]


def test_projectors_are_noticed() -> None:
    assert choose_files(_listing("a.gguf", "mmproj-F16.gguf", "mmproj.txt")).mmproj == ("mmproj-F16.gguf",)


def test_the_reason_says_when_there_were_several() -> None:
    assert "first of 2" in choose_files(_listing("a-Q4_K_M.gguf", "b-Q4_K_M.gguf")).reason
    assert "nearest" in choose_files(_listing("a-Q5_0.gguf", "b-Q8_0.gguf")).reason


@pytest.mark.parametrize(
    ("paths", "wish", "says"),
    [
        pytest.param(["model.safetensors", "config.json"], "", "no GGUF file; there is: model.safetensors", id="none"),
        pytest.param([], "", "there is: nothing", id="empty"),
        pytest.param(["mmproj.gguf"], "", "there is: mmproj.gguf", id="only a projector"),
        pytest.param(["a.Q8_0.gguf", "a.Q2_K.gguf"], "Q4_K_M", "quantizations: Q2_K, Q8_0", id="another quantization"),
        pytest.param(["a.gguf"], "Q4_K_M", "models: a.gguf", id="no quantization in any name"),
        pytest.param(["a.gguf"], "b.gguf", "no GGUF file 'b.gguf'", id="another file"),
        pytest.param(["A.gguf"], "a.gguf", "there is: A.gguf", id="a path is exact"),
        pytest.param(["d/readme.md"], "d/readme.md", "no GGUF file", id="a file that is no model"),
        pytest.param(_split("a", 3)[:2], "", "part 3 of 3 is missing", id="the last part is missing"),
        pytest.param(_split("a", 3)[1:], "", "part 1 of 3 is missing", id="the first part is missing"),
        pytest.param([*_split("a", 1), "a-00002-of-00001.gguf"], "", "parts beyond 1", id="a part too many"),
        pytest.param(["a-00001-of-99999.gguf"], "", "part 2 of 99999 is missing", id="a false promise"),
        pytest.param(["a-00000-of-00000.gguf"], "", "parts beyond 0", id="part nought"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(paths: list[str], wish: str, says: str) -> None:
    with pytest.raises(NoGgufInRepoError) as refusal:
        choose_files(_listing(*paths), wish)
    assert says in refusal.value.message


def test_a_huge_listing_is_not_repeated_whole() -> None:
    with pytest.raises(NoGgufInRepoError) as refusal:
        choose_files(_listing(*(f"{number}{'x' * 500}.bin" for number in range(5000))))
    assert len(refusal.value.message) < 6000
    assert len(str(refusal.value.details)) < 6000


_HOSTILE = [
    "../x.gguf", "a/../../x.gguf", "/etc/x.gguf", "a//b.gguf", "./a.gguf", "a/./b.gguf", "a\0.gguf", "a\n.gguf",
    "\x1b[31mred.gguf", "tiny\u202e.gguf", "naïve.gguf", "a\\b.gguf", "C:\\x.gguf", "~root/x.gguf", "-rf.gguf",
    ".hidden.gguf", "a/.ssh/x.gguf", " a.gguf", "a/ /b.gguf", "a /b.gguf", f"{'x' * 300}.gguf",
    f"{'d/' * 600}x.gguf", "",
]  # fmt: skip


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_name_is_refused_before_it_is_a_path(name: str) -> None:
    with pytest.raises(ModelInvalidError) as refusal:
        safe_relative_path(name)
    assert refusal.value.message.isprintable()
    assert refusal.value.message.isascii() or "…" in refusal.value.message
    if name.endswith(".gguf"):
        with pytest.raises(ModelInvalidError):
            choose_files(_listing(name))


def test_names_that_differ_in_capitals_only_are_refused() -> None:
    with pytest.raises(ModelInvalidError, match="capitals"):
        choose_files(_listing("Tiny.gguf", "tiny.gguf"), "tiny.gguf")


@given(st.text(alphabet=st.sampled_from("abA1./\\~- \0\n\x1b\x7fé…"), max_size=40) | st.text(max_size=300))
@example("a/b/c.gguf")
def test_what_passes_stays_below_its_directory(name: str) -> None:
    try:
        path = safe_relative_path(name)
    except ModelInvalidError:
        return
    assert not path.is_absolute()
    assert str(path) == name
    assert ".." not in path.parts
    assert name.isascii()
    assert name.isprintable()


@given(
    st.lists(st.sampled_from([*_split("a-Q4_K_M", 3), "b.Q8_0.gguf", "mmproj.gguf", "c.gguf", "x.bin", "../e.gguf"])),
    st.sampled_from(["", "Q4_K_M", "q8_0", "c.gguf", "x.bin", "../e.gguf", "nonsense"]),
)
def test_a_choice_is_whole_and_from_the_listing_or_an_error_for_people(paths: list[str], wish: str) -> None:
    listing = _listing(*paths)
    try:
        chosen = choose_files(listing, wish)
    except (NoGgufInRepoError, ModelInvalidError):
        return
    assert set(chosen.files) <= set(listing.files)
    part = split_part(chosen.files[0].path)
    assert len(chosen.files) == (part.count if part else 1)
