"""The header reader against real files, every lie that a header can tell, and noise."""

import io
import os
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import gguf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.gguf_bytes import (
    ARRAY,
    FLOAT32,
    Q4_0,
    TEXT,
    UINT8,
    UINT32,
    UINT64,
    Gguf,
    array,
    key,
    number,
    tensor,
    text,
)
from tests.support.gguf_expert_shapes import deepseek2
from tests.support.gguf_recurrent_shapes import jamba
from tests.support.gguf_shapes import Size, llama, write_model
from tests.support.models import storyteller
from typing_extensions import override

from rbee_hive.domain.models.ggml_types import FILE_TYPES, GGML_TYPES
from rbee_hive.domain.models.gguf import GgufHeader, quant_name, read_header
from rbee_hive.domain.models.gguf_values import Omitted
from rbee_shared.errors import ModelInvalidError

MIB = 1024 * 1024
MOST_MEMORY = 32 * MIB
STORYTELLER = storyteller()
STORYTELLER_HEADER = STORYTELLER[:40_000]
NAME = key("general.architecture", TEXT, text("llama"))


def read(data: bytes, size_bytes: int | None = None) -> GgufHeader:
    return read_header(io.BytesIO(data), len(data) if size_bytes is None else size_bytes)


def refusal(data: bytes, size_bytes: int | None = None) -> str:
    with pytest.raises(ModelInvalidError) as refused:
        read(data, size_bytes)
    assert refused.value.hint
    return refused.value.message


# ---- what is right


def _as_written(path: Path) -> tuple[dict[str, Any], list[tuple[Any, ...]], int]:
    """What the library for the format reads of a file."""
    reader = gguf.GGUFReader(path)
    values = {name: part.contents() for name, part in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = [(t.name, tuple(map(int, t.shape)), t.tensor_type.name, int(t.n_bytes)) for t in reader.tensors]
    return values, tensors, reader.data_offset


@pytest.mark.parametrize("kind", ["storyteller", "Q4_K", "experts", "state"])
def test_it_reads_what_the_library_for_the_format_reads(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    if kind == "storyteller":
        path.write_bytes(STORYTELLER)
    elif kind == "Q4_K":
        write_model(path, llama(Size(kind="Q4_K", n_vocab=10_000)))
    elif kind == "experts":
        write_model(path, deepseek2(Size(head_dim=64, kind="Q8_0"), experts=8, used=2))
    else:
        write_model(path, jamba(Size()))
    values, tensors, data_offset = _as_written(path)

    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)

    assert [(t.name, t.dims, t.kind.name, t.size_bytes) for t in header.tensors] == tensors
    assert header.data_offset == data_offset
    assert header.n_params == sum(tensor.n_values for tensor in header.tensors) > 0
    assert header.data_offset + header.tensor_bytes <= path.stat().st_size
    assert header.metadata.keys() == values.keys()
    for name, value in header.metadata.items():
        if isinstance(value, Omitted):
            assert value.length == len(values[name])
        elif isinstance(value, tuple):
            assert list(value) == values[name]
        else:
            assert value == values[name]


def test_versions_2_and_3_are_one_format() -> None:
    two, three = read(bytes(Gguf(version=2))), read(bytes(Gguf(version=3)))

    assert (two.version, three.version) == (2, 3)
    assert (two.metadata, two.tensors, two.data_offset) == (three.metadata, three.tensors, three.data_offset)


def test_long_values_are_counted_short_ones_kept() -> None:
    scores = struct.pack("<5000f", *range(5000))
    header = read(
        bytes(
            Gguf(
                keys=(
                    key("short", TEXT, text("ä\x00b")),
                    key("long", TEXT, text("x" * 70_000)),
                    array("words", TEXT, 3, text("a") + text("") + text("c" * 300)),
                    array("heads", UINT32, 3, struct.pack("<3I", 8, 0, 8)),
                    array("scores", FLOAT32, 5000, scores),
                    array("none", UINT8, 0),
                    array("no words", TEXT, 0),
                    key("big", UINT64, struct.pack("<Q", 2**64 - 1)),
                )
            )
        )
    )

    assert header.metadata == {
        "short": "ä\x00b",
        "long": Omitted("text", 70_000),
        "words": Omitted("text", 3),
        "heads": (8, 0, 8),
        "scores": Omitted("float32", 5000),
        "none": (),
        "no words": Omitted("text", 0),
        "big": 2**64 - 1,
    }


@pytest.mark.parametrize("piece_bytes", [1 * MIB, 5 * MIB, 9 * MIB])
def test_words_go_on_where_a_piece_of_the_file_ends(piece_bytes: int) -> None:
    words = [b"w" * (number % 40) for number in range(piece_bytes // 28)] + [b"long" * MIB, b"last"]
    data = b"".join(text(word) for word in words)
    header = read(bytes(Gguf(keys=(array("words", TEXT, len(words), data), NAME))))

    assert header.metadata == {"words": Omitted("text", len(words)), "general.architecture": "llama"}


def test_a_file_of_a_vocabulary_has_no_tensors() -> None:
    header = read(Gguf(tensors=()).header)

    assert (header.tensors, header.n_params, header.tensor_bytes) == ((), 0, 0)
    assert quant_name(header) == "unknown"


def test_sizes_are_those_of_the_library_for_the_format() -> None:
    ours = {number: (kind.name, kind.block_size, kind.block_bytes) for number, kind in GGML_TYPES.items()}
    theirs = {kind.value: (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    del theirs[9], ours[9]  # Q8_1 stands in no file; the library has the size of an older one

    assert theirs.items() <= ours.items()
    assert set(ours) - set(theirs) <= {42}, "newer in llama.cpp than in the library"
    assert GGML_TYPES[2].size_bytes(4096) == 2304


def test_names_of_mixes_are_those_of_the_library_for_the_format() -> None:
    theirs = {kind.value: kind.name.removeprefix("ALL_").removeprefix("MOSTLY_") for kind in gguf.LlamaFileType}
    theirs = {number: name.removesuffix("_MOE") for number, name in theirs.items() if name != "GUESSED"}

    assert theirs.items() <= FILE_TYPES.items()


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        pytest.param((number("general.file_type", 15),), "Q4_K_M", id="as the file says"),
        pytest.param((number("general.file_type", 999),), "Q4_0", id="unheard of"),
        pytest.param((key("general.file_type", TEXT, text("Q9")),), "Q4_0", id="no number"),
        pytest.param((), "Q4_0", id="most of the values"),
    ],
)
def test_what_people_call_it(keys: tuple[bytes, ...], name: str) -> None:
    tensors = (tensor("norm", (64,)), tensor("matrix", (64, 64), Q4_0, 256))

    assert quant_name(read(bytes(Gguf(keys=keys, tensors=tensors, data_bytes=4096)))) == name


# ---- what is wrong

HUGE = 2**63


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        pytest.param(Gguf(magic=b"PK\x03\x04"), "no GGUF file: it begins with b'PK", id="a zip"),
        pytest.param(Gguf(version=1), "version 1", id="version 1"),
        pytest.param(Gguf(version=4), "version 4; versions 2 and 3 are known", id="version 4"),
        pytest.param(Gguf(version=0), "version 0", id="version 0"),
        pytest.param(Gguf(version=3 << 24), "big-endian", id="big-endian"),
        pytest.param(Gguf(n_tensors=HUGE), f"promises {HUGE} tensors", id="2^63 tensors"),
        pytest.param(Gguf(n_keys=HUGE), f"promises {HUGE} keys", id="2^63 keys"),
        pytest.param(Gguf(n_keys=2), "the name of a tensor has", id="a tensor read as a key"),
        pytest.param(Gguf(keys=(struct.pack("<Q", 2**62),)), f"a key has {2**62} bytes", id="2^62 bytes of a key"),
        pytest.param(
            Gguf(keys=(key("a", TEXT, struct.pack("<Q", 2**62)),)), f"'a' needs {2**62} bytes", id="2^62 of a text"
        ),
        pytest.param(Gguf(keys=(key("", UINT8, b"1"),)), "is empty", id="no name"),
        pytest.param(Gguf(keys=(NAME, NAME)), "'general.architecture' is there twice", id="a key twice"),
        pytest.param(Gguf(keys=(key("a", 13, b""),)), "'a' has a value of unknown kind 13", id="unknown kind"),
        pytest.param(Gguf(keys=(array("a", 77, 1),)), "'a' has a value of unknown kind 77", id="array of unknown kind"),
        pytest.param(Gguf(keys=(array("a", ARRAY, 1),)), "array of arrays", id="nested"),
        pytest.param(Gguf(keys=(array("a", TEXT, 2**60),)), f"promises {2**60} texts", id="2^60 texts"),
        pytest.param(Gguf(keys=(array("a", UINT64, 2**61),)), "needs 18446744073709551616 bytes", id="2^61 numbers"),
        pytest.param(
            Gguf(keys=(array("a", TEXT, 2, text("b") + struct.pack("<Q", 2**64 - 1)),)), "'a' needs", id="huge word"
        ),
        pytest.param(Gguf(keys=(number("general.alignment", 0),)), "'0', which is no power of two", id="alignment 0"),
        pytest.param(Gguf(keys=(number("general.alignment", 24),)), "'24', which is no power", id="alignment 24"),
        pytest.param(Gguf(keys=(key("general.alignment", TEXT, text("32")),)), "no power of two", id="alignment text"),
        pytest.param(Gguf(tensors=(tensor("n" * 64, (8,)),)), "has 64 bytes; at most 63", id="long name"),
        pytest.param(Gguf(tensors=(tensor("a", (1,) * 5),)), "has 5 dimensions", id="five dimensions"),
        pytest.param(Gguf(tensors=(tensor("a", (2, 0)),)), "a dimension of 0", id="dimension 0"),
        pytest.param(Gguf(tensors=(tensor("a", (8,), 43),)), "made for a newer llama.cpp", id="newer format"),
        pytest.param(Gguf(tensors=(tensor("a", (8,), 31),)), "or a very old one", id="removed format"),
        pytest.param(Gguf(tensors=(tensor("a", (33,), Q4_0),)), "rows of 33 values, no multiple of 32", id="row"),
        pytest.param(Gguf(tensors=(tensor("a", (), Q4_0),)), "rows of 1 values", id="scalar in blocks"),
        pytest.param(Gguf(tensors=(tensor("a", (HUGE, HUGE, HUGE, HUGE)),)), "bytes are missing", id="2^252 values"),
        pytest.param(
            Gguf(tensors=(tensor("a", (8,)), tensor("a", (8,), offset=32))), "'a' is there twice", id="a tensor twice"
        ),
        pytest.param(Gguf(tensors=(tensor("a", (8,), offset=32),)), "lies at 32, not at 0", id="gap"),
        pytest.param(Gguf(tensors=(tensor("a", (8,)), tensor("b", (8,)))), "'b' lies at 0, not at 32", id="overlap"),
        pytest.param(
            Gguf(tensors=(tensor("a", (8,)), tensor("b", (8,), offset=2**64 - 32))), "'b' lies at", id="far away"
        ),
        pytest.param(Gguf(data_bytes=100), "28 bytes are missing of 256", id="cut off"),
    ],
)
def test_a_header_that_lies(file: Gguf, reason: str) -> None:
    assert reason in refusal(bytes(file))


def test_control_codes_in_names_reach_no_terminal_and_no_message_is_endless() -> None:
    message = refusal(bytes(Gguf(keys=(key(b"\x1b[2J\xff\n" + b"k" * 60_000, 99, b""),))))

    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        pytest.param(Gguf(keys=tuple(number(f"k{n}", n) for n in range(4097))), "4097 keys", id="keys"),
        pytest.param(
            Gguf(tensors=tuple(tensor(f"t{n}", (8,), offset=32 * n) for n in range(16_385)), data_bytes=MIB),
            "16385 tensors",
            id="tensors",
        ),
        pytest.param(
            Gguf(keys=tuple(array(f"a{n}", UINT8, 4096, bytes(4096)) for n in range(110))),
            "more than 16777216 bytes besides its vocabulary",
            id="numbers",
        ),
        pytest.param(
            Gguf(keys=tuple(key(f"t{n}", TEXT, text(bytes(65_000))) for n in range(300))),
            "more than 16777216 bytes besides its vocabulary",
            id="texts",
        ),
        pytest.param(
            Gguf(keys=tuple(array(f"w{n}", TEXT, 600_000, bytes(4_800_000)) for n in range(3))),
            "at most 1500000 are read in all",
            id="words",
        ),
    ],
)
def test_too_much_of_anything(file: Gguf, reason: str) -> None:
    assert reason in refusal(bytes(file))


class _Zeros(io.RawIOBase):
    """A file that goes on for ever and holds nothing."""

    def __init__(self, begin: bytes) -> None:
        super().__init__()
        self._begin = begin
        self._at = 0

    @override
    def read(self, size: int = -1) -> bytes:
        data = self._begin[self._at : self._at + size]
        self._at += size
        return data + bytes(size - len(data))

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self._at = offset
        return offset


TERABYTES = 2**45
_HEAD = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1)


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(struct.pack("<4sIQQ", b"GGUF", 3, 2**40, 2**40), id="counts"),
        pytest.param(_HEAD + array("a", TEXT, 2**41), id="a trillion empty words"),
        pytest.param(_HEAD + array("a", TEXT, 500_000), id="half a million empty words"),
        pytest.param(_HEAD + array("a", UINT64, 2**41), id="a trillion numbers"),
        pytest.param(_HEAD + key("a", TEXT, struct.pack("<Q", 2**44)), id="an endless text"),
        pytest.param(_HEAD + struct.pack("<Q", 2**44), id="an endless key"),
        pytest.param(b"GGUF" + bytes(64), id="nothing"),
    ],
)
def test_a_huge_file_takes_neither_memory_nor_time(begin: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(ModelInvalidError):  # one tensor without a name may well follow
            read_header(cast("BinaryIO", _Zeros(begin)), TERABYTES)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < MOST_MEMORY


def test_a_full_header_takes_little_memory() -> None:
    keys = (
        *(number(f"key.{n:04}" + "x" * 1000, n) for n in range(2000)),
        *(array(f"numbers.{n}", UINT32, 4096, bytes(16_384)) for n in range(80)),
        array("words", TEXT, 100_000, bytes(8 * 100_000)),
    )
    tensors = tuple(tensor(f"tensor.{n:05}" + "x" * 50, (8,), offset=32 * n) for n in range(8000))
    data = bytes(Gguf(keys=keys, tensors=tensors, data_bytes=32 * 8000))
    tracemalloc.start()
    try:
        header = read(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(header.tensors) == 8000
    assert peak_bytes < 2 * MOST_MEMORY


def test_a_download_that_broke_off_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, llama(Size()))
    size_bytes = path.stat().st_size
    os.truncate(path, size_bytes - 1_000_000)

    with path.open("rb") as file, pytest.raises(ModelInvalidError) as refused:
        read_header(file, size_bytes - 1_000_000)

    assert "1000000 bytes are missing" in refused.value.message
    assert refused.value.details == {"missing_bytes": 1_000_000, "size_bytes": size_bytes - 1_000_000}


def test_a_file_that_shrinks_while_it_is_read() -> None:
    assert "shorter than it was" in refusal(bytes(Gguf())[:40], size_bytes=10_000)


def test_cut_off_at_every_byte() -> None:
    file = Gguf(keys=(NAME, array("words", TEXT, 2, text("a") + text("b")), array("n", UINT32, 2, bytes(8))))
    whole = bytes(file)
    assert read(whole).tensors

    for end in range(len(whole)):
        assert refusal(whole[:end])


def test_the_embedded_model_cut_off_anywhere() -> None:
    for end in range(0, len(STORYTELLER), 100_003):
        assert refusal(STORYTELLER[:end])


# ---- noise


def _reads_or_refuses(data: bytes) -> None:
    try:
        header = read(data)
    except ModelInvalidError:
        return
    assert header.data_offset + header.tensor_bytes <= len(data) or not header.tensors
    assert quant_name(header)


@given(st.binary(max_size=400))
@example(b"")
@example(b"GGUF")
def test_noise(data: bytes) -> None:
    _reads_or_refuses(data)


@given(st.binary(max_size=400), st.sampled_from([0, 1, 2, 5, 100, 2**32, 2**63]))
def test_noise_behind_a_right_beginning(data: bytes, count: int) -> None:
    _reads_or_refuses(struct.pack("<4sIQQ", b"GGUF", 3, count % 7, count) + data)


_CHANGES: list[Callable[[bytearray, int, bytes], None]] = [
    lambda data, at, new: data.__setitem__(slice(at, at + len(new)), new),
    lambda data, at, new: data.__setitem__(slice(at, at), new),
    lambda data, at, new: data.__delitem__(slice(at, at + len(new))),
]


@given(
    st.sampled_from([STORYTELLER, bytes(Gguf(tensors=tuple(tensor(f"t{n}", (8,), offset=32 * n) for n in range(4))))]),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.one_of(
                st.binary(min_size=1, max_size=9), st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little"))
            ),
            st.sampled_from(_CHANGES),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_real_header_with_some_of_it_changed(
    whole: bytes, changes: list[tuple[float, bytes, Callable[[bytearray, int, bytes], None]]]
) -> None:
    data = bytearray(whole)
    header_bytes = min(len(whole), len(STORYTELLER_HEADER))
    for place, new, change in changes:
        change(data, int(place * header_bytes), new)

    _reads_or_refuses(bytes(data))
