"""Set-up: the locks can be trusted, the stamp notices what matters, and what is missing is named with its cure."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import setup
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
INPUTS = ["pyproject.toml", "requirements.lock", "requirements-worker.lock", "requirements-build.lock"]


def locked(lock: Path) -> dict[str, list[tuple[str, str]]]:
    """For each name in a lock, its versions with what stands behind them: marker and hashes."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        match = re.fullmatch(r"([\w.-]+)==(\S+)(.*)", entry, re.DOTALL)
        assert match, f"{lock.name}: not pinned: {entry.splitlines()[0]}"
        name, version, rest = match.groups()
        found.setdefault(name, []).append((version, rest))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_everything_with_hashes_and_names_no_address(lock: Path) -> None:
    assert "://" not in lock.read_text()
    for name, versions in locked(lock).items():
        for version, rest in versions:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", rest), f"{name}=={version} has no hash"


def ranges() -> dict[str, list[str]]:
    """What pyproject.toml asks of each lock."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base = asked["project"]["dependencies"]
    return {
        "requirements.lock": base,
        "requirements-worker.lock": base + asked["project"]["optional-dependencies"]["worker"],
        "requirements-dev.lock": asked["dependency-groups"]["dev"],
        "requirements-build.lock": asked["dependency-groups"]["build"] + asked["build-system"]["requires"],
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_satisfies_the_ranges(lock: Path) -> None:
    found = locked(lock)
    for requirement in map(Requirement, ranges()[lock.name]):
        for version, _ in found[requirement.name.lower().replace("_", "-")]:
            assert Version(version) in requirement.specifier


def test_the_locks_agree_with_each_other() -> None:
    everywhere: dict[str, set[tuple[str, ...]]] = {}
    for lock in LOCKS:
        for name, versions in locked(lock).items():
            everywhere.setdefault(name, set()).add(tuple(version for version, _ in versions))
    assert [name for name, found in everywhere.items() if len(found) > 1] == []


def test_the_base_install_needs_no_compiler() -> None:
    assert setup.ENGINE not in locked(ROOT / "requirements.lock")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what set-up reads, with a finished `.venv` that holds nothing but its stamps."""
    copy = tmp_path / "a checkout"
    for path in [*INPUTS, "requirements-dev.lock", "scripts/setup", "scripts/setup.py", "src/rbee_shared/version.py"]:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(setup, "ROOT", copy)
    monkeypatch.setattr(setup, "VENV", copy / ".venv")
    monkeypatch.setattr(setup, "PYTHON", copy / ".venv" / "bin" / "python")
    monkeypatch.setattr(setup, "LOG", copy / ".venv" / "setup.log")
    setup.write_stamps(facts_of(copy, "--dev"), with_tools=True)
    return copy


def run_setup(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`scripts/setup` with a Python that, instead of setting up, prints the facts it was handed."""
    stand_in = checkout / "stand-in"
    stand_in.write_text('#!/bin/sh\n[ "$1" = -c ] || cat\n')
    stand_in.chmod(0o755)
    environment = os.environ | {"RBEE_PYTHON": str(stand_in)}
    command = [str(checkout / "scripts" / "setup"), *arguments]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=30)


def facts_of(checkout: Path, *arguments: str) -> str:
    return run_setup(checkout, *arguments).stdout


@pytest.mark.parametrize("arguments", [(), ("--dev",)], ids=["run", "dev"])
def test_a_second_run_does_nothing_and_says_nothing(checkout: Path, arguments: tuple[str, ...]) -> None:
    assert facts_of(checkout, *arguments) == ""


@pytest.mark.parametrize("changed", [*INPUTS, "scripts/setup.py", "src/rbee_shared/version.py"])
def test_a_change_of_what_is_installed_sets_up_again(checkout: Path, changed: str) -> None:
    path = checkout / changed
    path.write_text("# changed\n" + path.read_text())
    assert "# changed" in facts_of(checkout)


def test_a_change_of_the_tools_concerns_only_dev(checkout: Path) -> None:
    with (checkout / "requirements-dev.lock").open("a") as lock:
        lock.write("# changed\n")
    assert facts_of(checkout) == ""
    assert "# changed" in facts_of(checkout, "--dev")


def test_a_lint_setting_sets_up_nothing(checkout: Path) -> None:
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert facts_of(checkout, "--dev") == ""


def test_a_moved_checkout_is_set_up_again(checkout: Path) -> None:
    moved = checkout.rename(checkout.with_name("moved"))
    assert facts_of(moved).startswith(str(moved))


def test_a_vanished_python_is_set_up_again(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    assert facts_of(checkout) != ""


def test_without_python_the_command_to_get_it_is_named(checkout: Path) -> None:
    (checkout / ".venv" / ".stamp").unlink()
    environment = os.environ | {"RBEE_PYTHON": "/nowhere/python3"}
    command = [str(checkout / "scripts" / "setup")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "apt-get install python3" in done.stderr
    assert "brew install python" in done.stderr


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which nothing is."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("CXX", raising=False)
    return programs


def test_a_missing_compiler_is_named_with_the_command_for_each_system(
    empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(setup.SetupError) as caught:
        setup.require_compiler()
    for command in ("apt-get install g++", "dnf install gcc-c++", "pacman -S gcc", "xcode-select --install"):
        assert command in str(caught.value)


def test_root_on_debian_gets_the_compiler_installed(
    checkout: Path, empty_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    apt = empty_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho apt-get "$@"\n[ $1 = update ] || /bin/ln -s /bin/true {empty_path}/g++\n')
    apt.chmod(0o755)
    setup.require_compiler()
    assert "apt-get install -q -y --no-install-recommends g++" in (checkout / ".venv" / "setup.log").read_text()


def test_a_compiler_that_only_says_how_to_get_one_is_none(empty_path: Path) -> None:
    (empty_path / "c++").symlink_to("/bin/false")
    assert not setup.has_compiler()


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution", "cannot be reached"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "not the one that was locked"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "Memory ran out"),
    ],
)
def test_a_failure_is_explained_in_plain_words(checkout: Path, output: str, cause: str) -> None:
    with pytest.raises(setup.SetupError) as caught:
        setup.step("Doing it", ["sh", "-c", f"echo '{output}'; exit 1"])
    assert "Doing it failed" in str(caught.value)
    assert cause in str(caught.value)
    assert str(setup.LOG) in str(caught.value)


def test_an_unexplained_failure_shows_the_end_of_its_output(checkout: Path) -> None:
    with pytest.raises(setup.SetupError, match="something odd"):
        setup.step("Doing it", ["sh", "-c", "echo something odd; exit 1"])


def test_a_kept_engine_that_was_damaged_is_not_used(tmp_path: Path) -> None:
    assert not setup.is_intact(tmp_path)
    wheel = tmp_path / "engine.whl"
    wheel.write_bytes(b"compiled")
    (tmp_path / "sha256").write_text(setup.sha256(wheel) + "\n")
    assert setup.is_intact(tmp_path)
    wheel.write_bytes(b"damaged!")
    assert not setup.is_intact(tmp_path)


def test_other_compiler_flags_are_another_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBEE_CACHE", str(tmp_path))
    plain = setup.engine_wheel()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=OFF")
    assert setup.engine_wheel() != plain
    assert plain.parent == tmp_path / "wheels"


HOLDER = """
import sys, pathlib, setup
setup.LOG = pathlib.Path(sys.argv[2])
with setup.only_one(pathlib.Path(sys.argv[1]), "it"):
    setup.step("Sleeping", ["sleep", "100"])
"""


def test_a_killed_set_up_holds_nobody_up(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    argv = [sys.executable, "-c", HOLDER, str(lock), str(tmp_path / "log")]
    holder = subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, stderr=subprocess.PIPE)
    with holder:
        until_noted(lock)
        noted = lock.read_text().split()
        holder.send_signal(signal.SIGKILL)
    assert setup.is_alive(int(noted[1]))  # what it started lives on, and with it the lock
    began_s = time.monotonic()
    with setup.only_one(lock, "another"):
        assert time.monotonic() - began_s < 20
    assert not setup.is_alive(int(noted[1]))


def until_noted(lock: Path) -> None:
    deadline_s = time.monotonic() + 20
    while not (lock.exists() and lock.read_text()):
        assert time.monotonic() < deadline_s, "the holder never began its step"
        time.sleep(0.02)
