"""`--probe` and `--engine-path`: which llama.cpp a worker runs, said by the library itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.engine_wheels import VERSION, fake_wheel
from tests.support.worker import worker_failure, worker_process

from rbee_shared.programs import program_argv

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

INSTALLED = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def _probe(*flags: str, **environ: str) -> tuple[int, dict[str, Any], str]:
    """Status, report, standard error."""
    done = subprocess.run(
        [*program_argv("llm-worker-rbee"), "--probe", *flags],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an engine of its own: the installed one's files, copied."""
    directory = tmp_path_factory.mktemp("builds") / "cpu"
    for name in ("llama_cpp", f"llama_cpp_python-{VERSION}.dist-info"):
        shutil.copytree(INSTALLED / name, directory / name, symlinks=True)
    return directory


def test_the_installed_engine_tells_what_is_in_it() -> None:
    status, report, _ = _probe()

    assert status == 0
    assert report["version"] == VERSION
    assert "cpu" in report["backends"]
    assert report["devices"]["cpu"]
    assert report["features"]
    assert report["missing"] == []
    assert report["python"] == f"cp3{sys.version_info.minor}"


def test_a_build_is_taken_before_what_is_installed_whatever_the_environment_says(build: Path) -> None:
    status, report, _ = _probe(
        "--engine-path", str(build), LLAMA_CPP_LIB_PATH="/nonexistent", PYTHONPATH="/nonexistent"
    )

    assert status == 0
    assert report["path"] == str(build / "llama_cpp")


def test_the_version_is_that_of_the_build_and_not_of_what_is_installed(build: Path, tmp_path: Path) -> None:
    shutil.copytree(build, tmp_path / "old", symlinks=True)
    info = tmp_path / "old" / f"llama_cpp_python-{VERSION}.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 0.0.7\n")
    info.rename(info.with_name("llama_cpp_python-0.0.7.dist-info"))
    assert _probe("--engine-path", str(tmp_path / "old"))[1]["version"] == "0.0.7"

    shutil.rmtree(info.with_name("llama_cpp_python-0.0.7.dist-info"))
    assert _probe("--engine-path", str(tmp_path / "old"))[1]["version"] == "unknown"


def test_what_is_no_build_is_refused_and_never_replaced_by_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "llama_cpp").mkdir(parents=True)
    for name, why in (
        ("missing", "no directory"),
        ("file", "no directory"),
        ("empty", "holds no llama-cpp-python"),
        ("half", "holds no llama-cpp-python"),
        ("x" * 5000, "too long"),
    ):
        status, report, _ = _probe("--engine-path", str(tmp_path / name))
        assert status == 1, name[:20]
        assert why in report["error"], name[:20]


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user who is not root: root reads everything")
def test_a_directory_that_cannot_be_read_is_said(build: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    shutil.copytree(build, locked, symlinks=True)
    locked.chmod(0)
    try:
        assert "cannot be read" in _probe("--engine-path", str(locked))[1]["error"]
    finally:
        locked.chmod(0o700)


def test_a_library_that_does_not_load_is_said(build: Path, tmp_path: Path) -> None:
    shutil.copytree(build, tmp_path / "broken", symlinks=True)
    for library in (tmp_path / "broken" / "llama_cpp" / "lib").glob("libllama.so*"):
        library.unlink()
        library.write_bytes(b"\x7fELF" + bytes(60))

    status, report, _ = _probe("--engine-path", str(tmp_path / "broken"))

    assert status == 1
    assert "llama.cpp cannot be loaded" in report["error"]
    assert "libllama" in report["error"]


def test_a_crash_while_loading_is_seen_as_one(tmp_path: Path) -> None:
    wheel = fake_wheel(tmp_path, "import ctypes\nctypes.string_at(0)")
    shutil.unpack_archive(wheel, tmp_path / "crash", "zip")

    status, report, _ = _probe("--engine-path", str(tmp_path / "crash"))

    assert status == -signal.SIGSEGV
    assert report == {}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells what a process has loaded")
async def test_a_worker_serves_with_the_engine_of_a_build(build: Path, tmp_path: Path) -> None:
    async with worker_process(tmp_path, "--engine-path", str(build)) as worker:
        await worker.until_ready()
        mapped = await anyio.Path(f"/proc/{worker.child.pid}/maps").read_text()
        assert len((await worker.execute(prompt="Once", max_tokens=4)).ids) > 0

    assert str(build / "llama_cpp" / "lib" / "libllama.so") in mapped
    assert str(INSTALLED / "llama_cpp") not in mapped


async def test_a_worker_without_its_build_tells_its_hive_so(tmp_path: Path) -> None:
    status, failure = await worker_failure(tmp_path, "--engine-path", str(tmp_path / "gone"))

    assert status == 1
    assert failure is not None
    assert failure.code == "BACKEND_UNAVAILABLE"
    assert "gone is no directory" in failure.message


def test_nothing_of_an_engine_is_imported_before_its_place_is_known() -> None:
    script = (
        "import sys, llm_worker_rbee.cli, llm_worker_rbee.life\n"
        "print(sorted({'llama_cpp', 'numpy', 'jinja2', 'markupsafe', 'llguidance'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
