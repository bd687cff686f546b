"""Under CI, as root, a skip that hides an untested promise fails the run; elsewhere it is a skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.skips import EXCUSES

ROOT = Path(__file__).resolve().parents[2]
_TESTS = """
import pytest

@pytest.mark.skip(reason="the tool is missing")
def test_marked(): ...

def test_called():
    pytest.skip("the tool is missing")

@pytest.fixture
def device():
    pytest.skip("the tool is missing")

def test_fixture(device): ...

@pytest.mark.xfail(reason="known")
def test_expected():
    raise AssertionError

@pytest.mark.parametrize("reason", %r)
def test_excused(reason):
    pytest.skip(f"{reason}: this machine has none")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for whom alone skips fail")
@pytest.mark.parametrize(
    ("ci", "summary"), [("true", "1 failed, 2 skipped, 1 xfailed, 2 errors"), (None, "5 skipped, 1 xfailed")]
)
def test_under_ci_only_a_missing_device_excuses_a_skip(tmp_path: Path, ci: str | None, summary: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.support.skips import pytest_runtest_makereport\n")
    (tmp_path / "test_it.py").write_text(_TESTS % (EXCUSES,))
    env = {name: value for name, value in os.environ.items() if name != "CI"} | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.run(
        argv, env=env | ({"CI": ci} if ci else {}), cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert summary in run.stdout.splitlines()[-1]
    assert run.returncode == (1 if ci else 0)
    if ci:
        assert run.stdout.count("skipped under CI, as root: the tool is missing") >= 3
