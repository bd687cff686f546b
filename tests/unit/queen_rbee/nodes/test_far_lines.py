"""What comes back from a program on a node, and what it means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.domain.nodes.far_end import far_error
from queen_rbee.domain.nodes.far_lines import FarLines

NONCE = "n" * 32
_JSON = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


@given(st.lists(_JSON), st.lists(st.integers(min_value=1, max_value=40)), st.text(alphabet="abc \r", max_size=20))
def test_objects_survive_every_cut_and_every_noise(said: list[dict[str, Any]], cuts: list[int], noise: str) -> None:
    stream = "".join(f"{noise}\n{noise}{NONCE} {json.dumps(item)}\n" for item in said).encode()
    lines, heard = FarLines(NONCE), []
    for cut in cuts:
        chunk, stream = stream[:cut], stream[cut:]
        heard += lines.feed(chunk)
    heard += lines.feed(stream)
    assert heard == said
    assert NONCE.encode() not in lines.noise


@given(st.binary())
def test_garbage_is_noise(garbage: bytes) -> None:
    lines = FarLines(NONCE)
    assert lines.feed(garbage + b"\n") == []
    assert bool(lines.noise) is any(line.strip() for line in garbage.split(b"\n"))


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 60_000, "NaN", '"x"'])
def test_what_is_no_object_is_passed_over(text: str) -> None:
    assert FarLines(NONCE).feed(f"{NONCE} {text}\n".encode()) == []


def test_a_line_without_an_end_takes_bounded_memory_and_the_next_one_is_in_step() -> None:
    lines = FarLines(NONCE)
    for _ in range(100):
        assert lines.feed(b"x" * 10_000) == []
    assert len(lines._rest) <= 64 * 1024
    assert lines.feed(b"\n" + NONCE.encode() + b' {"a": 1}\n') == [{"a": 1}]
    assert len(lines.noise) <= 64 * 1024


@pytest.mark.parametrize(
    ("why", "lines", "code", "words", "hint"),
    [
        ("token", [], "HIVE_OWNED", "it broke", "node add mac --home"),
        ("running", [], "INSTALL_FAILED", "it broke", "node stop mac."),
        ("busy", [], "INSTALL_FAILED", "it broke", "the other installation"),
        ("foreign", [], "INSTALL_FAILED", "it broke", "by hand"),
        ("step", ["ERROR: [Errno 28] No space left on device"], "DISK_FULL", "the disk is full", "Free space"),
        ("system", ["OSError: Disk quota exceeded"], "DISK_FULL", "the disk is full", "Free space"),
        ("step", ["Temporary failure in name resolution"], "INSTALL_FAILED", "package index", "node wheelhouse mac,"),
        ("step", ["Connection to x timed out."], "INSTALL_FAILED", "no package index", "node wheelhouse"),
        ("step", ["DO NOT MATCH THE HASHES"], "INSTALL_FAILED", "not the one that was locked", "other files"),
        ("step", ["No matching distribution found for a==7.2"], "INSTALL_FAILED", "no a==7.2 for it", "wheelhouse"),
        ("step", ["Got x", "ERROR: odd", "note: y"], "INSTALL_FAILED", "it broke: ERROR: odd", "Read the lines"),
        ("step", ["just words"], "INSTALL_FAILED", "it broke: just words", "Read the lines"),
        ("interrupted", [], "INSTALL_FAILED", "it broke", "Run the command again"),
    ],
)  # fmt: skip
def test_why_it_failed_becomes_an_error_with_a_next_step(
    why: str, lines: list[str], code: str, words: str, hint: str
) -> None:
    error = far_error({"why": why, "text": "it broke", "lines": lines}, "mac")
    assert error.code == code
    assert error.message.startswith("mac: ")
    assert words in error.message
    assert hint in error.hint
    assert "NAME" not in error.hint


def test_a_library_that_is_lacking_here_has_a_next_step_of_its_own() -> None:
    said = {"why": "step", "text": "it broke", "lines": ["Network is unreachable"]}
    assert far_error(said, "darwin-arm64-cp311", lacking_hint="See which index pip uses here.").hint == (
        "See which index pip uses here."
    )


@pytest.mark.parametrize("said", [None, {}, {"why": "no such", "text": ""}, {"why": "step"}, [], "x"])
def test_an_end_that_makes_no_sense_is_an_error_too(said: Any) -> None:
    assert far_error(said, "mac").code == "INSTALL_FAILED"


def test_secrets_and_control_characters_in_pips_words_are_not_passed_on() -> None:
    lines = ["ERROR: https://user:x@index token=abcdefgh12345678 \x1b[31mred"]
    error = far_error({"why": "step", "text": "it broke", "lines": lines}, "mac")
    whole = error.message + str(error.details)
    assert "abcdefgh12345678" not in whole
    assert "\x1b" not in whole
