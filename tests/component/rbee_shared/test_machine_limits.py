"""What this process may use, against what really happens to memory and what containers are told."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rbee_shared.machine_limits import logical_cores, memory, quota_cores

MIB = 1024 * 1024
HELD_BYTES = 256 * MIB
NOISE_BYTES = 64 * MIB  # what other programs of the machine may do meanwhile
HOLD = f"""
import mmap, sys
held = mmap.mmap(-1, {HELD_BYTES})
for page in range(0, {HELD_BYTES}, mmap.PAGESIZE):
    held[page] = 1
print("held", flush=True)
sys.stdin.read()
"""


def test_memory_is_free_again_as_soon_as_its_holder_is_dead() -> None:
    for _ in range(3):  # Linux keeps more and more of it aside when programs come and go
        before_bytes = memory().free_bytes
        with memory_held():
            held_bytes = before_bytes - memory().free_bytes
        missing_bytes = before_bytes - memory().free_bytes

        assert held_bytes > HELD_BYTES - NOISE_BYTES
        assert missing_bytes < NOISE_BYTES


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("memory.max", "memory.current", "inactive_file"), id="v2"),
        pytest.param(("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), id="v1"),
    ],
)
@pytest.mark.parametrize(
    ("limit_mib", "free_mib"),
    [
        pytest.param(50, 20, id="what is held counts, without the cache of files"),
        pytest.param(10, 0, id="already beyond it"),
    ],
)
def test_memory_within_a_container(tmp_path: Path, names: tuple[str, str, str], limit_mib: int, free_mib: int) -> None:
    limit_file, used_file, cache_name = names
    (tmp_path / limit_file).write_text(f"{limit_mib * MIB}\n")
    (tmp_path / used_file).write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\n{cache_name} {70 * MIB}\n")

    now = memory([tmp_path, tmp_path / "no-group-at-all"])

    assert (now.total_bytes, now.free_bytes) == (limit_mib * MIB, free_mib * MIB)


def test_memory_without_a_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{100 * MIB}\n")

    now = memory([tmp_path])

    assert NOISE_BYTES < now.free_bytes <= now.total_bytes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"cpu.max": "150000 100000"}, 1.5, id="v2"),
        pytest.param({"cpu.max": "max 100000"}, None, id="v2 without a limit"),
        pytest.param({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5, id="v1"),
        pytest.param({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None, id="v1 without a limit"),
        pytest.param({}, None, id="no group"),
    ],
)
def test_quota_of_a_container(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")

    assert quota_cores([tmp_path]) == expected


def test_the_narrowest_quota_counts(tmp_path: Path) -> None:
    inner, outer = tmp_path / "outer" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("400000 100000\n")
    (outer / "cpu.max").write_text("200000 100000\n")

    assert quota_cores([inner, outer]) == 2


def test_this_machine_has_a_processor() -> None:
    assert logical_cores() >= 1


@contextmanager
def memory_held() -> Generator[None]:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield
    finally:
        child.kill()
        child.communicate()
