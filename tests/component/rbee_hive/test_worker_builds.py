"""Worker builds made by real pip, loaded by a real worker, with everything that can go wrong on the way.

llama.cpp itself is not compiled here: what pip "compiles" is a source tree whose build backend belongs to the test.
"""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.builds import Audience, builder
from tests.support.engine_wheels import (
    VERSION,
    WHEEL_NAME,
    altered_wheel,
    fake_wheel,
    other_wheel,
    real_wheel,
    runs,
    source_tree,
)
from tests.support.processes import described, processes_with_env, wait_gone, wait_until

from rbee_hive.builds.catalog import WorkerCatalog
from rbee_hive.builds.preflight import this_target
from rbee_hive.builds.probe import probe
from rbee_hive.builds.step import StepPlace
from rbee_hive.domain.builds.build_plan import require_kind, wheel_directory
from rbee_hive.domain.builds.engine_lock import Locked
from rbee_hive.domain.builds.probe_report import ProbeFailure
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.provisions import BuildRow
from rbee_shared.errors import (
    BuildFailedError,
    DiskFullError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
)
from rbee_shared.file_lock import try_lock
from rbee_shared.paths import Home

pytestmark = pytest.mark.timeout(300)

MARK = "WORKER_BUILD_TEST"
PROGRAM = Path(__file__).parents[2] / "support" / "programs" / "build_hive.py"
ROOT = Path(__file__).parents[3]
NINJA = """
for number in range(1, 5):
    say(f"[{number}/4] /usr/bin/c++ -c file{number}.cpp")
    time.sleep(0.2)
"""
STUBBORN = """
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
subprocess.Popen(["sleep", "600"], process_group=0)
time.sleep(600)
"""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_wheel(tmp_path_factory.mktemp("engine"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def audience() -> Audience:
    return Audience()


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """An environment with a compiler and a CUDA toolkit that answer, and nothing else of theirs."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name in ("c++", "nvcc"):
        (directory / name).write_text("#!/bin/sh\nexit 0\n")
        (directory / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in {"CXX", "CUDACXX", "CMAKE_ARGS"}}
    return {**kept, "PATH": f"{directory}:/usr/bin:/bin", MARK: str(tmp_path)}


def _wheels(tmp_path: Path, wheel: Path, kind: str = "cpu", name: str = WHEEL_NAME) -> Path:
    """A `wheels_dir` that offers `wheel` for that kind."""
    directory = tmp_path / "wheels" / wheel_directory(require_kind(kind), this_target(VERSION))
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(wheel, directory / name)
    return tmp_path / "wheels"


def _left(home: Path) -> list[str]:
    """What lies in the directory of builds, locks aside."""
    return sorted(path.name for path in (home / "workers").iterdir() if path.suffix != ".lock")


async def _refused(home: Path, audience: Audience, kind: str = "cpu", **options: Any) -> BuildFailedError:
    """The error of a build that cannot be made; nothing of it is left."""
    async with builder(home, audience, **options) as made:
        with pytest.raises(BuildFailedError) as caught:
            await made.provide(kind, audience.narrator, audience.shown.append, rebuild=True)
    assert await anyio.to_thread.run_sync(_left, home) == []
    return caught.value


# the hive's own environment


async def test_the_environment_is_a_build_and_is_asked_once(home: Path, audience: Audience) -> None:
    async with builder(home, audience) as made:
        unproven = await made.provide("cpu", audience.narrator, audience.shown.append)
        first = await made.rows()
        row = await made.provide("cpu", audience.narrator, audience.shown.append)
    assert (unproven.id, unproven.features) == (row.id, ()), "the processor's needs no proof"
    log = anyio.Path(home / "logs" / "build-probe.log")
    assert await log.exists(), "it was asked"
    await log.unlink()
    async with builder(home, audience) as made:
        assert await made.rows() == first
        assert await made.find("cpu") == row
        assert await made.find("vulkan") is None
    assert not await log.exists(), "a warm start asks nobody"
    assert (row.id, row.path, row.source, row.version) == ("cpu-builtin", None, "environment", VERSION)
    assert "cpu" in row.backends
    assert audience.actions == ["build_there"] * 2


async def test_only_who_can_wait_looks_into_the_environment(home: Path, audience: Audience, tmp_path: Path) -> None:
    log = anyio.Path(home / "logs" / "build-probe.log")
    nothing = {**os.environ, "PATH": str(tmp_path)}
    async with builder(home, audience, environ=nothing) as made:
        assert (found := await made.find("cpu")) is not None
        assert (found.id, found.made_at_unix) == ("cpu-builtin", 0)
        assert [await made.find(kind) for kind in ("cuda", "metal", "vulkan")] == [None] * 3
        assert not await log.exists(), "a question that somebody waits for asks nobody"
        with pytest.raises(BuildFailedError):
            await made.provide("vulkan", audience.narrator, audience.shown.append)
    assert audience.actions[0] == "look"
    assert await log.exists()


async def test_what_another_environment_was_is_not_believed(home: Path, audience: Audience) -> None:
    async with builder(home, audience) as made:
        (row,) = await made.rows()
    async with WorkerCatalog.open(home / "workers.db", home / "workers", audience.moved.append) as catalog:
        await catalog.put_environment("another", [row.model_copy(update={"id": "cuda-builtin", "kind": "cuda"})])
    async with builder(home, audience) as made:
        assert await made.find("cuda") is None


async def test_the_log_of_a_look_is_of_the_last_look(home: Path, audience: Audience) -> None:
    log = anyio.Path(home / "logs" / "build-probe.log")
    await log.parent.mkdir(parents=True)
    await log.write_text("of long ago\n" * 1000)
    async with builder(home, audience) as made:
        await made.rows()
    assert "of long ago" not in await log.read_text()
    await log.unlink()
    await log.mkdir()
    async with WorkerCatalog.open(home / "workers.db", home / "workers", audience.moved.append) as catalog:
        await catalog.put_environment("another", [])
    async with builder(home, audience) as made:
        assert await made.rows() == (), "no log, no look; and the hive lives"


async def test_another_environment_than_the_catalog_knows_is_asked_again(home: Path, audience: Audience) -> None:
    async with builder(home, audience) as made:
        (row,) = await made.rows()
    async with WorkerCatalog.open(home / "workers.db", home / "workers", audience.moved.append) as catalog:
        old = row.model_copy(update={"id": "cuda-builtin", "kind": "cuda", "version": "0.0.1"})
        await catalog.put_environment("of another time", [old])
    async with builder(home, audience) as made:
        assert [found.id for found in await made.rows()] == ["cpu-builtin"]


# from a wheel


async def test_a_wheel_becomes_a_build_that_is_found_from_then_on(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    wheels = _wheels(tmp_path, engine)
    async with builder(home, audience, wheels_dir=wheels) as made:
        row = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        assert await made.provide("cpu", audience.narrator, audience.shown.append) == row

    directory = home / "workers" / f"cpu-{VERSION}"
    assert (row.id, row.path, row.source, row.version) == (directory.name, str(directory), "wheel", VERSION)
    assert row.size_bytes > 1_000_000
    assert row.features
    assert audience.actions == ["build", "wheel", "install", "probe", "built", "build_there"]
    assert audience.shown, "a sign of life"
    assert BuildRow.model_validate_json(await anyio.Path(directory / "build.json").read_text()) == row
    assert await anyio.to_thread.run_sync(_left, home) == [directory.name]
    async with builder(home, audience) as again:
        assert await again.find("cpu") == row


async def test_a_bad_build_never_takes_the_place_of_a_good_one(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    wheels = _wheels(tmp_path, engine)
    async with builder(home, audience, wheels_dir=wheels) as made:
        good = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        foreign = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(200)  # of an ARM machine
        _wheels(tmp_path, await anyio.to_thread.run_sync(altered_wheel, tmp_path / "altered", foreign))
        with pytest.raises(BuildFailedError, match=r"does not load: llama.cpp cannot be loaded.*libllama") as caught:
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        assert await made.find("cpu") == good

    assert caught.value.details["log"] == str(home / "logs" / "build-cpu.log")
    assert await anyio.Path(caught.value.details["log"]).exists(), "the log is kept"
    assert await anyio.to_thread.run_sync(_left, home) == [good.id]
    async with builder(home, audience) as again:
        assert await again.find("cpu") == good


async def test_a_wheel_without_the_backend_is_refused(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    error = await _refused(home, audience, "cuda", wheels_dir=_wheels(tmp_path, engine, "cuda"))
    assert "no cuda backend, only cpu" in error.message


@pytest.mark.parametrize(
    ("bindings", "why"),
    [
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "another processor"),
        ("print('{\"version\": 1}', flush=True); import os; os._exit(0)", "exit 0"),
        ("import time; time.sleep(600)", "no line of output came for 3 s"),
        ("raise OSError('libcuda.so.1: cannot open shared object file')", "libcuda.so.1"),
        ("raise ZeroDivisionError", "exit 1"),
    ],
)
async def test_an_engine_that_crashes_hangs_or_babbles_gives_a_reason(tmp_path: Path, bindings: str, why: str) -> None:
    shutil.unpack_archive(fake_wheel(tmp_path, bindings), tmp_path / "site", "zip")
    report = await probe(tmp_path / "site", os.environ, StepPlace(tmp_path / "log", silence_s=3))
    assert isinstance(report, ProbeFailure)
    assert why in report.why


async def test_an_engine_that_crashes_becomes_no_build(tmp_path: Path, home: Path, audience: Audience) -> None:
    wheels = _wheels(tmp_path, fake_wheel(tmp_path / "fake", "import ctypes; ctypes.string_at(0)"))
    error = await _refused(home, audience, wheels_dir=wheels)
    assert "the build does not load: loading it ended without a word (killed by SIGSEGV)" in error.message
    async with builder(home, audience) as made:
        assert [row.id for row in await made.rows()] == ["cpu-builtin"]


async def test_wheels_that_pip_does_not_take_are_told_apart(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    wheels = _wheels(tmp_path, engine, name=f"llama_cpp_python-{VERSION}-py3-none-win32.whl")
    assert "another Python or platform" in (await _refused(home, audience, wheels_dir=wheels)).message

    _wheels(tmp_path, engine)
    assert "2 wheels" in (await _refused(home, audience, wheels_dir=wheels)).message

    await anyio.to_thread.run_sync(shutil.rmtree, wheels)
    (tmp_path / "damaged").write_bytes(b"PK\x03\x04 not a wheel")
    _wheels(tmp_path, tmp_path / "damaged")
    assert "the wheel is damaged" in (await _refused(home, audience, wheels_dir=wheels)).message


async def test_what_the_environment_lacks_is_installed_beside_the_engine(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    wheels = _wheels(tmp_path, engine)
    other_wheel(wheels, "never_installed")
    needs = {
        "never_installed": Locked(frozenset({"1.0"}), "never_installed==1.0\n"),
        "pip": Locked(frozenset({importlib.metadata.version("pip")}), "pip==0.0.0\n"),  # there, so not looked for
    }
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    async with builder(home, audience, wheels_dir=wheels, needs=needs, environ=offline) as made:
        row = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)

    assert row.path is not None
    assert await anyio.Path(row.path, "never_installed.py").exists()
    assert await anyio.Path(row.path, "llama_cpp").exists()
    assert not await anyio.Path(row.path, "pip").exists()


async def test_a_package_that_cannot_be_had_is_named(
    tmp_path: Path, home: Path, engine: Path, audience: Audience
) -> None:
    needs = {"never_installed": Locked(frozenset({"1.0"}), "never_installed==1.0\n")}
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    error = await _refused(home, audience, wheels_dir=_wheels(tmp_path, engine), needs=needs, environ=offline)
    assert "installing what the engine needs failed (exit 1): the Python package index does not have" in error.message
    assert any("never_installed" in line for line in error.details["last_lines"])


# missing tools, room


async def test_without_a_compiler_nothing_is_begun(tmp_path: Path, home: Path, audience: Audience) -> None:
    (tmp_path / "bin").mkdir()
    error = await _refused(home, audience, environ={**os.environ, "PATH": str(tmp_path / "bin"), "CXX": ""})
    assert "C++ compiler" in error.message
    assert "apt-get install g++" in error.hint

    (tmp_path / "bin" / "c++").write_text("#!/bin/sh\necho 'note: no developer tools were found' >&2; exit 1\n")
    (tmp_path / "bin" / "c++").chmod(0o755)
    error = await _refused(home, audience, environ={**os.environ, "PATH": str(tmp_path / "bin"), "CXX": ""})
    assert "C++ compiler" in error.message
    assert not await anyio.Path(home / "logs" / "build-cpu.log").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a machine without Metal")
async def test_a_kind_that_cannot_exist_here_is_said(home: Path, audience: Audience, tools: dict[str, str]) -> None:
    assert "macOS only" in (await _refused(home, audience, "metal", environ=tools)).message
    async with builder(home, audience) as made:
        for kind in ("rocm", "../../etc", ""):
            with pytest.raises(InvalidRequestError):
                await made.provide(kind, audience.narrator, audience.shown.append)


@pytest.fixture
def small_disk(home: Path) -> Generator[Path]:
    """The directory of builds on a disk of 300 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux and root, to mount a small disk")
    workers = home / "workers"
    workers.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", workers], check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield workers
    subprocess.run(["umount", workers], check=True)


@pytest.mark.usefixtures("small_disk")
async def test_too_little_room_is_known_before_anything_is_fetched(
    home: Path, audience: Audience, tools: dict[str, str]
) -> None:
    async with builder(home, audience, environ=tools) as made:
        with pytest.raises(DiskFullError, match="free"):
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
    assert audience.actions == ["build"]


async def test_a_disk_that_fills_up_in_the_middle_is_said_and_emptied(
    tmp_path: Path, home: Path, small_disk: Path, audience: Audience
) -> None:
    swelling = fake_wheel(tmp_path / "fake", "", **{"large.bin": bytes(400_000_000)})
    async with builder(home, audience, wheels_dir=_wheels(tmp_path, swelling)) as made:
        with pytest.raises(DiskFullError, match="installing the engine failed: the disk is full"):
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
    assert await anyio.to_thread.run_sync(_left, home) == []
    assert shutil.disk_usage(small_disk).used < 1_000_000


# compiling


async def test_compiling_is_followed_to_its_end(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    work = NINJA + f"open({str(tmp_path / 'seen')!r}, 'w').write(repr(dict(os.environ)))"
    requirement = source_tree(tmp_path / "source", engine, work)
    environ = {**tools, "HF_TOKEN": "hf_secret", "RBEE_QUEEN_TOKEN": "secret", "PIP_REQUIRE_HASHES": "1"}
    async with builder(home, audience, engine=requirement, environ=environ) as made:
        row = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)

    assert (row.source, row.path) == ("compiled", str(home / "workers" / f"cpu-{VERSION}"))
    assert audience.actions == ["build", "compile", "install", "probe", "built"]
    percents = [shown.done for shown in audience.shown]
    assert percents == sorted(percents)
    assert {25, 50, 75, 100} <= set(percents)
    assert {(shown.stage, shown.total) for shown in audience.shown} == {("build", 100)}
    assert "secret" not in await anyio.Path(tmp_path / "seen").read_text()
    log = await anyio.Path(home / "logs" / "build-cpu.log").read_text()
    assert "[4/4] /usr/bin/c++ -c file4.cpp" in log


async def test_a_build_whose_backend_is_not_in_is_refused_after_all_that_compiling(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    requirement = source_tree(tmp_path / "source", engine, NINJA)
    error = await _refused(home, audience, "cuda", engine=requirement, environ=tools)

    assert "no cuda backend" in error.message
    assert "-DGGML_CUDA=on" in runs(tmp_path / "source")[0]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ggml.c:10:3: error: unknown type name 'half'", "ggml.c:10:3: error: unknown type name 'half'"),
        ("\\x1b[31mCMake Error at CMakeLists.txt:1\\x1b[0m", "CMake Error at CMakeLists.txt:1"),
    ],
)
async def test_a_failing_compiler_is_quoted(  # noqa: PLR0917 - pytest calls it by name
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str], said: str, why: str
) -> None:
    requirement = source_tree(tmp_path / "source", engine, f'say("{said}")\nsys.exit(1)')
    error = await _refused(home, audience, engine=requirement, environ=tools)

    assert why in error.message
    assert str(home / "logs" / "build-cpu.log") in error.message
    assert any(why in line for line in error.details["last_lines"])
    assert "\x1b" not in json.dumps(error.body())


async def test_a_silent_compiler_is_ended(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    requirement = source_tree(tmp_path / "source", engine, 'say("[1/4] the last word")\n' + STUBBORN)
    clocks = Clocks(build_silence_s=4)
    error = await _refused(home, audience, engine=requirement, environ=tools, clocks=clocks)

    assert "no line of output came for 4 s" in error.message
    assert processes_with_env(MARK, str(tmp_path)) == []


async def test_a_compiler_that_never_ends_is_ended(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    requirement = source_tree(tmp_path / "source", engine, "while True:\n    say('still at it')\n    time.sleep(0.1)")
    error = await _refused(home, audience, engine=requirement, environ=tools, clocks=Clocks(build_s=6))

    assert "not done within 6 s" in error.message
    assert processes_with_env(MARK, str(tmp_path)) == []


def _compilers(tmp_path: Path) -> list[int]:
    """Every process of the build, once the two are up that a signal to its group does not reach: else none."""
    mine = processes_with_env(MARK, str(tmp_path))
    apart = [pid for pid in (process.pid for process in mine) if re.search(r"SIG_IGN|\bsleep 600", described(pid))]
    return [process.pid for process in mine] if len(apart) == 2 else []


async def test_cancelling_ends_every_compiler_and_frees_the_lock(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    requirement = source_tree(tmp_path / "source", engine, STUBBORN)
    async with builder(home, audience, engine=requirement, environ=tools) as made, anyio.create_task_group() as group:

        async def provide() -> None:
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)

        group.start_soon(provide)
        await anyio.to_thread.run_sync(wait_until, lambda: _compilers(tmp_path), 60, "the compilers run")
        pids = _compilers(tmp_path)
        began_s = anyio.current_time()
        group.cancel_scope.cancel()
    assert anyio.current_time() - began_s < 20
    await anyio.to_thread.run_sync(wait_gone, pids, 1.0)
    assert await anyio.to_thread.run_sync(_left, home) == []

    async with builder(home, audience, wheels_dir=_wheels(tmp_path, engine)) as again:
        await again.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)


def _hive(home: Path, requirement: str, environ: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(home), "cpu", requirement],
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.allow_blocking("the test starts the processes; the code under test runs in them")
async def test_a_killed_hive_takes_its_compilers_along_and_leaves_only_what_the_next_one_removes(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    hive = _hive(home, source_tree(tmp_path / "source", engine, STUBBORN), tools)
    await anyio.to_thread.run_sync(wait_until, lambda: _compilers(tmp_path), 60, "the compilers run")
    pids = _compilers(tmp_path)
    os.kill(hive.pid, signal.SIGKILL)
    hive.communicate()
    await anyio.to_thread.run_sync(wait_gone, pids, 10.0)

    assert _left(home) == [f"cpu-{VERSION}.partial"]
    async with builder(home, audience, wheels_dir=_wheels(tmp_path, engine)) as made:
        assert [row.id for row in await made.rows()] == ["cpu-builtin"], "a partial one is not offered"
        row = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
    assert _left(home) == [row.id]


@pytest.mark.allow_blocking("the test starts the processes; the code under test runs in them")
async def test_two_hives_of_one_home_make_one_build(
    tmp_path: Path, home: Path, engine: Path, tools: dict[str, str]
) -> None:
    requirement = source_tree(tmp_path / "source", engine, "time.sleep(3)")
    hives = [_hive(home, requirement, tools) for _ in range(2)]
    answers = [json.loads(hive.communicate(timeout=120)[0]) for hive in hives]

    assert answers == [{"path": str(home / "workers" / f"cpu-{VERSION}")}] * 2
    assert len(runs(tmp_path / "source")) == 1


async def test_who_waits_for_a_build_that_is_cancelled_makes_it(
    tmp_path: Path, home: Path, engine: Path, audience: Audience, tools: dict[str, str]
) -> None:
    flag = tmp_path / "slow"
    flag.touch()
    work = f"while os.path.exists({str(flag)!r}):\n    time.sleep(0.05)"
    requirement = source_tree(tmp_path / "source", engine, work)
    rows: list[BuildRow] = []
    second = Audience()
    async with builder(home, audience, engine=requirement, environ=tools) as made, anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def provide_first() -> None:
            with first:
                await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)

        async def provide_second() -> None:
            rows.append(await made.provide("cpu", second.narrator, second.shown.append, rebuild=True))

        group.start_soon(provide_first)
        await anyio.to_thread.run_sync(wait_until, lambda: runs(tmp_path / "source"), 30, "the first one compiles")
        group.start_soon(provide_second)
        await anyio.to_thread.run_sync(wait_until, lambda: "wait" in second.actions, 10, "the second one waits")
        await anyio.Path(flag).unlink()
        first.cancel()

    assert len(rows) == 1
    assert second.actions == ["wait", "build", "compile", "install", "probe", "built"]


# the catalog


@pytest.fixture(scope="module")
def some_home(tmp_path_factory: pytest.TempPathFactory, engine: Path) -> Path:
    """With one build in it."""
    directory = tmp_path_factory.mktemp("some")

    async def make() -> None:
        audience = Audience()
        async with builder(directory / "home", audience, wheels_dir=_wheels(directory, engine)) as made:
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)

    anyio.run(make)
    return directory / "home"


@pytest.fixture
def used_home(some_home: Path, home: Path) -> Path:
    """The same home, moved to another place."""
    return Path(shutil.copytree(some_home, home))


async def _build(home: Path) -> BuildRow:
    async with builder(home, Audience()) as made:
        row = await made.find("cpu")
    assert row is not None
    assert row.path == str(home / "workers" / f"cpu-{VERSION}"), "where the home is now"
    return row


async def test_a_damaged_catalog_is_made_anew_from_the_directories(used_home: Path, audience: Audience) -> None:
    row = await _build(used_home)
    await anyio.Path(used_home / "workers.db").write_bytes(b"scribbled" * 1000)
    for suffix in ("-wal", "-shm"):
        await anyio.Path(used_home / f"workers.db{suffix}").unlink(missing_ok=True)

    async with builder(used_home, audience) as again:
        assert await again.find("cpu") == row
    assert len(audience.moved) == 1
    assert await anyio.Path(audience.moved[0].moved_to).exists()


async def test_a_newer_catalog_is_left_alone(home: Path, audience: Audience) -> None:
    async with builder(home, audience):
        pass
    with closing(sqlite3.connect(home / "workers.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(NotSupportedError):
        async with builder(home, audience):
            pass


async def test_directories_that_are_no_builds_are_passed_over(home: Path, audience: Audience) -> None:
    workers = home / "workers"
    note = BuildRow(
        id="cpu-1", kind="cpu", version="1", path="/etc", python="cp311", platform="x", made_at_unix=1, source="wheel"
    ).model_dump_json()
    for name, content in {
        "cpu-1.partial": note, "cpu-garbage": "{", "cpu-2": note, "cpu-binary": "\x00\xff", "cpu-list": "[]",
        "cpu-deep": "[" * 100_000, "cpu-1": note,
    }.items():  # fmt: skip
        await anyio.Path(workers / name).mkdir(parents=True)
        await anyio.Path(workers / name / "build.json").write_text(content)
    await anyio.Path(workers / "cpu-empty").mkdir()
    await anyio.Path(workers / "cpu-file").touch()
    await anyio.Path(workers / "cpu-link").symlink_to(workers / "cpu-1")

    async with builder(home, audience) as made:
        found = {row.id: row.path for row in await made.rows()}
        assert found == {"cpu-1": str(workers / "cpu-1"), "cpu-builtin": None}, "and its place is where it lies"
        assert (await made.provide("cpu", audience.narrator, audience.shown.append)).id == "cpu-builtin", "outdated"


async def test_a_build_that_vanished_is_noticed_when_it_is_wanted(used_home: Path, audience: Audience) -> None:
    row = await _build(used_home)
    async with builder(used_home, audience) as made:
        await anyio.to_thread.run_sync(shutil.rmtree, used_home / "workers" / row.id)
        found = await made.find("cpu")
        assert found is not None
        assert found.id == "cpu-builtin"
        assert row not in await made.rows()


async def test_a_build_is_removed_with_its_files_and_the_environment_is_not(
    used_home: Path, audience: Audience
) -> None:
    row = await _build(used_home)
    async with builder(used_home, audience) as made:
        assert await made.remove(row.id) == row
        assert await anyio.to_thread.run_sync(_left, used_home) == []
        for unknown in (row.id, "../models", "", "x" * 9999):
            with pytest.raises(NotFoundError):
                await made.remove(unknown)
        with pytest.raises(InvalidRequestError, match="own environment"):
            await made.remove("cpu-builtin")
        assert [left.id for left in await made.rows()] == ["cpu-builtin"]


async def test_a_build_that_a_worker_runs_is_neither_removed_nor_replaced(
    tmp_path: Path, used_home: Path, audience: Audience, engine: Path
) -> None:
    row = await _build(used_home)
    used = {str(row.path)}
    async with builder(used_home, audience, wheels_dir=_wheels(tmp_path, engine), in_use=lambda: used) as made:
        with pytest.raises(ForbiddenError, match="a worker runs the build") as removing:
            await made.remove(row.id)
        with pytest.raises(ForbiddenError):
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        assert "rbee-hive worker list" in removing.value.hint
        assert audience.actions == [], "nothing was begun"
        assert await made.find("cpu") == row

        used.clear()
        made_anew = await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        assert (made_anew.path, await made.find("cpu")) == (row.path, made_anew)


async def test_a_worker_that_starts_while_its_build_is_made_anew_keeps_it(
    tmp_path: Path, used_home: Path, audience: Audience, engine: Path
) -> None:
    row = await _build(used_home)
    marker = used_home / "workers" / row.id / "marker"
    await anyio.Path(marker).touch()

    def in_use() -> set[str]:
        return {str(row.path)} if "probe" in audience.actions else set()

    async with builder(used_home, audience, wheels_dir=_wheels(tmp_path, engine), in_use=in_use) as made:
        with pytest.raises(ForbiddenError):
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
        assert await made.find("cpu") == row
    assert marker.exists()
    assert await anyio.to_thread.run_sync(_left, used_home) == [row.id]


async def test_who_waited_for_the_lock_looks_again_before_a_build_is_removed(
    used_home: Path, audience: Audience
) -> None:
    row = await _build(used_home)
    used: set[str] = set()
    lock = try_lock(used_home / "workers" / "cpu.lock")
    assert lock is not None
    async with builder(used_home, audience, in_use=lambda: used) as made, anyio.create_task_group() as group:

        async def remove() -> None:
            with pytest.raises(ForbiddenError):
                await made.remove(row.id)

        group.start_soon(remove)
        await anyio.to_thread.run_sync(wait_until, lambda: "wait" in audience.actions, 10, "it waits")
        used.add(str(row.path))
        os.close(lock)
    assert await anyio.Path(str(row.path)).exists()


async def test_a_compiler_that_hangs_is_waited_for_by_nobody_who_cancels(
    tmp_path: Path, home: Path, audience: Audience
) -> None:
    (tmp_path / "c++").write_text("#!/bin/sh\nexec sleep 8\n")
    (tmp_path / "c++").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "CXX": ""}
    async with builder(home, audience, environ=environ) as made:
        began_s = anyio.current_time()
        with anyio.move_on_after(1) as scope:
            await made.provide("cpu", audience.narrator, audience.shown.append, rebuild=True)
    assert scope.cancelled_caught
    assert anyio.current_time() - began_s < 6


def test_the_paths_of_a_home_hold_no_surprise(tmp_path: Path) -> None:
    assert Home(tmp_path).workers_db == tmp_path / "workers.db"
    assert Home(tmp_path).workers == tmp_path / "workers"
