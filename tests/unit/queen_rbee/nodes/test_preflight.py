"""What follows from a look at a machine."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.probed_nodes import INSTALLED, MINE, PROBE, python

from queen_rbee.domain.nodes.preflight import (
    INSTALL_ROOM_BYTES,
    Assessment,
    Install,
    Mine,
    Ready,
    Refuse,
    assess,
)
from queen_rbee.domain.nodes.probe_report import HiveThere, Probe
from queen_rbee.domain.nodes.python_choice import choose_python
from rbee_shared.errors import RbeeError

NODE = "studio"  # the machine calls itself mac


def said(assessment: Assessment, about: str) -> str:
    (found,) = [finding.said for finding in assessment.findings if finding.about == about]
    return found


def refusal(probe: Probe, mine: Mine = MINE, *, may_install: bool = True) -> RbeeError:
    verdict = assess(probe, mine, NODE, may_install=may_install).verdict
    assert isinstance(verdict, Refuse)
    return verdict.error


def test_a_machine_with_this_very_rbee_is_ready_even_without_python_or_room() -> None:
    probe = replace(PROBE, installed=INSTALLED, runs="0.1.0", pythons=(), disk_free_bytes=0, writable=False)
    assert assess(probe, MINE, NODE, may_install=False).verdict == Ready(INSTALLED)


def test_a_bare_machine_is_installed_on() -> None:
    verdict = assess(PROBE, MINE, NODE, may_install=True).verdict
    assert verdict == Install(PROBE.pythons[0], MINE.tag, wheelhouse=False)
    with_house = replace(MINE, wheelhouses=frozenset({"linux-x86_64-cp311"}))
    assert assess(PROBE, with_house, NODE, may_install=True).verdict == Install(
        PROBE.pythons[0], MINE.tag, wheelhouse=True
    )


@pytest.mark.parametrize(
    ("installed", "runs", "words"),
    [
        pytest.param({"version": "0.0.9", "wheel_sha256": "cd" * 32}, "0.0.9", "0.0.9", id="another version"),
        pytest.param({"wheel_sha256": "cd" * 32}, "0.1.0", "0.1.0 of other code", id="other code of the same name"),
        pytest.param({}, None, "0.1.0, which does not run", id="the same, broken"),
        pytest.param({}, "0.0.9", "0.1.0 of other code", id="the same, somebody changed it"),
    ],
)
def test_any_other_rbee_is_replaced_or_refused_by_name(installed: dict[str, Any], runs: str | None, words: str) -> None:
    there = INSTALLED.model_copy(update=installed)
    probe = replace(PROBE, installed=there, runs=runs)
    assessment = assess(probe, MINE, NODE, may_install=True)
    assert isinstance(assessment.verdict, Install)
    assert assessment.verdict.was == there
    assert words in said(assessment, "rbee")
    error = refusal(probe, may_install=False)
    assert error.code == "VERSION_MISMATCH"
    assert words in error.message
    assert "node update studio" in error.hint


@pytest.mark.parametrize(
    ("changed", "code", "words", "hint"),
    [
        ({"pythons": ()}, "PYTHON_MISSING", "found: none", "Install"),
        ({"pythons": (python(version=(3, 9, 6)),)}, "PYTHON_MISSING", "found: Python 3.9.6 (/usr/bin/python3)", ""),
        ({"pythons": (python(venv=False),)}, "PYTHON_MISSING", "its venv module is missing", ""),
        ({"pythons": (python(bits=32),)}, "PYTHON_MISSING", "CPython with 64 bits", ""),
        ({"pythons": (python(system="FreeBSD", libc=""),)}, "PYTHON_MISSING", "FreeBSD is not supported", ""),
        ({"writable": False}, "INSTALL_FAILED", "rbee would be on studio: /home/v/.rbee", "node add studio --home"),
        ({"disk_free_bytes": INSTALL_ROOM_BYTES - 1}, "DISK_FULL", "419 MB free", "node add studio --home"),
    ],
)
def test_what_cannot_be_is_refused_with_its_own_code(changed: dict[str, Any], code: str, words: str, hint: str) -> None:
    error = refusal(replace(PROBE, **changed))
    assert error.code == code
    assert words in error.message
    assert hint in error.hint
    assert "NAME" not in error.hint


def test_without_leave_to_install_a_bare_machine_is_refused_under_the_name_it_has_here() -> None:
    error = refusal(PROBE, may_install=False)
    assert (error.code, error.message) == ("NOT_INSTALLED", "rbee is not installed on studio")
    assert error.hint == "Install it: rbee-keeper node install studio."


def test_unknown_room_is_no_reason_to_refuse_but_is_said() -> None:
    assessment = assess(replace(PROBE, disk_free_bytes=None), MINE, NODE, may_install=True)
    assert isinstance(assessment.verdict, Install)
    assert "cannot be asked" in said(assessment, "disk")


def test_one_line_is_said_about_everything() -> None:
    assessment = assess(PROBE, MINE, NODE, may_install=True)
    assert [finding.about for finding in assessment.findings] == [
        "shell", "python", "platform", "disk", "rbee", "hive", "worker_build",
    ]  # fmt: skip
    assert said(assessment, "shell") == "the shell of vince on mac runs commands"
    assert said(assessment, "hive") == "no hive runs there"
    assert "like this machine" in said(assessment, "platform")


def test_a_running_hive_is_said_and_a_dead_one_is_not() -> None:
    hive = HiveThere(url="http://127.0.0.1:9200", pid=7, instance="i", alive=True)
    running = assess(replace(PROBE, hive=hive), MINE, NODE, may_install=True)
    assert said(running, "hive") == "a hive runs there at http://127.0.0.1:9200 (pid 7)"
    dead = assess(replace(PROBE, hive=hive.model_copy(update={"alive": False})), MINE, NODE, may_install=True)
    assert said(dead, "hive") == "no hive runs there"


def test_what_a_hive_has_noted_and_nobody_can_read_is_said() -> None:
    damaged = assess(replace(PROBE, hive_damaged=True), MINE, NODE, may_install=True)
    assert said(damaged, "hive") == "what a hive has noted of itself in /home/v/.rbee/run cannot be read"
    assert not next(finding.is_good for finding in damaged.findings if finding.about == "hive")


def test_a_platform_unlike_the_queens_is_said_with_where_its_libraries_come_from() -> None:
    mac = python(system="Darwin", libc="", libc_version="", macos_version="14.5", machine="arm64")
    probe = replace(PROBE, system="Darwin", machine="arm64", pythons=(mac,))
    assert "its libraries come from an index" in said(assess(probe, MINE, NODE, may_install=True), "platform")
    mine = replace(MINE, wheelhouses=frozenset({"darwin-arm64-cp311"}))
    assert "a wheelhouse is there for it" in said(assess(probe, mine, NODE, may_install=True), "platform")
    unknown = replace(PROBE, system="Plan9", machine="mips", pythons=())
    assert said(assess(unknown, MINE, NODE, may_install=True), "platform") == "Plan9 mips"


ENGINE = "cpu-0.3.36-cp311-linux-x86_64"


@pytest.mark.parametrize(
    ("mine", "probe", "engines", "own", "words"),
    [
        pytest.param(
            {"engines": frozenset({ENGINE, "cuda-0.3.36-cp312-linux-x86_64"})}, {}, (ENGINE,), False,
            f"from engine wheels: {ENGINE}", id="a finished wheel",
        ),
        pytest.param({"engine": ENGINE}, {}, (), True, "this machine's engine, which fits", id="the queen's own"),
        pytest.param({"engine": ENGINE}, {"cpu": frozenset({"fpu"})}, (), False, "compiled there", id="lesser"),
        pytest.param({"engine": ENGINE, "cpu": frozenset()}, {}, (), False, "compiled there", id="unknown"),
        pytest.param(
            {"engine": ENGINE}, {"pythons": (python(version=(3, 12, 1)),)}, (), False, "compiled there", id="other"
        ),
        pytest.param({}, {}, (), False, "compiled there with /usr/bin/c++", id="a compiler"),
        pytest.param({}, {"compiler": None}, (), False, "no worker build can be made there", id="neither"),
        pytest.param({"engine": ENGINE}, {"pythons": ()}, (), False, "compiled there", id="no Python"),
    ],
)  # fmt: skip
def test_how_a_machine_will_get_its_worker_build_is_known_beforehand(
    mine: dict[str, Any], probe: dict[str, Any], engines: tuple[str, ...], own: bool, words: str
) -> None:
    assessment = assess(replace(PROBE, **probe), replace(MINE, **mine), NODE, may_install=True)
    assert (assessment.engines, assessment.own_engine) == (engines, own)
    assert words in said(assessment, "worker_build")


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        pytest.param([(3, 13, 1), (3, 11, 2), (3, 12, 4)], (3, 11, 2), id="the queen's, for what she has at hand"),
        pytest.param([(3, 12, 4), (3, 13, 1)], (3, 13, 1), id="else the newest"),
        pytest.param([(3, 15, 0), (3, 12, 4)], (3, 12, 4), id="one that was tried before one that was not"),
        pytest.param([(3, 17, 0), (3, 15, 2)], (3, 15, 2), id="else the one that is nearest to those"),
        pytest.param([(3, 9, 6)], None, id="none is recent enough"),
        pytest.param([], None, id="none at all"),
    ],
)
def test_which_python_is_chosen(versions: list[tuple[int, int, int]], chosen: tuple[int, int, int] | None) -> None:
    found = choose_python([python(version=version, path=f"/p/{version}") for version in versions], MINE.tag)
    assert (found.version if found else None) == chosen


def test_ties_break_on_the_path_so_that_a_choice_can_be_repeated() -> None:
    pythons = [python(path="/a"), python(path="/b")]
    assert choose_python(pythons, MINE.tag) == choose_python(reversed(pythons), MINE.tag)
