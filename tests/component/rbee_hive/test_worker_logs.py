"""What workers write to standard error is bounded, and its end is kept for the error."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.logs import (
    KEPT_FILES,
    KEPT_OF_ONE_WORKER,
    MAX_BYTES,
    bound,
    last_words,
    log_of,
    prune,
    prune_own,
)
from rbee_hive.workers.monitor import Monitor
from rbee_hive.workers.oom import OomLedger
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import WorkerState

_WRITER = "import sys\nfor line in sys.stdin: sys.stderr.write(line); sys.stderr.flush(); print(flush=True)"


def test_each_process_of_a_worker_has_a_log_of_its_own(tmp_path: Path) -> None:
    assert log_of(tmp_path, "worker-cpu-1", 0).name == "worker-cpu-1.err"
    assert log_of(tmp_path, "worker-cpu-1", 2).name == "worker-cpu-1.2.err"


def test_a_log_that_is_written_to_is_emptied_without_its_writer_noticing(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.err"
    log.write_bytes(b"old line\n" * (MAX_BYTES // 9 + 1))
    with log.open("ab") as stderr:
        writer = subprocess.Popen(
            [sys.executable, "-uc", _WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        for text in ("before", "after"):
            print(text, file=writer.stdin, flush=True)
            writer.stdout.readline()
            bound(log)
        writer.stdin.close()

    assert log.read_text() == "after\n", "no hole of zeros before it"
    aside = tmp_path / "worker-a.err.old"
    assert aside.read_text().endswith("old line\nbefore\n")
    assert aside.stat().st_size < MAX_BYTES / 4
    assert aside.stat().st_mode & 0o777 == 0o600
    assert last_words(log)[-2:] == ("before", "after"), "nothing of the end is lost"


def test_a_log_of_fair_size_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.err"
    log.write_bytes(b"x" * MAX_BYTES)

    bound(log)
    bound(tmp_path / "gone.err")

    assert os.listdir(tmp_path) == ["worker-a.err"]  # noqa: PTH208


def test_the_last_words_are_bounded_printable_and_keep_no_secret(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.err"
    lines = [b"line %d" % number for number in range(200)]
    log.write_bytes(
        b"\n".join([b"x" * 1_000_000, *lines, b"\xff\x1b[31mred", b"Authorization: Bearer abcdefghijklmnop"])
    )

    words = last_words(log)

    assert len(words) == 50
    assert words[0] == "line 152"
    assert "\x1b" not in "".join(words)
    assert "abcdefghijklmnop" not in "".join(words)
    assert last_words(tmp_path / "none.err") == ()


def _logs(directory: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (directory / name).write_text("")
        os.utime(directory / name, (number, number))


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_oldest_logs_of_ended_workers_go_and_no_other_file(tmp_path: Path) -> None:
    _logs(tmp_path, "rbee-hive.log", "rbee-hive.err", "worker-live.err", "worker-live.err.old", "worker-live.1.err")
    _logs(tmp_path, *(f"worker-{number:03}.err" for number in range(KEPT_FILES + 5)))

    prune(tmp_path, {"worker-live"})

    left = _names(tmp_path)
    assert {"rbee-hive.log", "rbee-hive.err", "worker-live.err", "worker-live.err.old", "worker-live.1.err"} < set(left)
    assert len(left) == KEPT_FILES + 5
    assert "worker-004.err" not in left
    assert "worker-005.err" in left


def test_a_worker_that_crashes_for_ever_fills_no_disk(tmp_path: Path) -> None:
    for number in range(10):
        log = log_of(tmp_path, "worker-a", number)
        _logs(tmp_path, "worker-b.err")
        log.write_text("")
        os.utime(log, (100 + number, 100 + number))
        prune_own(tmp_path, "worker-a")

    assert len(_names(tmp_path)) == KEPT_OF_ONE_WORKER + 1
    assert "worker-a.9.err" in _names(tmp_path)


def test_who_ends_well_leaves_no_log(tmp_path: Path) -> None:
    _logs(tmp_path, "worker-a.err", "worker-a.1.err", "worker-a.err.old", "worker-ab.err")

    worker_logs.remove(tmp_path, "worker-a")

    assert _names(tmp_path) == ["worker-ab.err"]


@pytest.mark.parametrize("kept", [0, KEPT_FILES])
def test_fewer_than_allowed_are_all_kept(tmp_path: Path, kept: int) -> None:
    _logs(tmp_path, *(f"worker-{number}.err" for number in range(kept)))

    prune(tmp_path, set())

    assert len(_names(tmp_path)) == kept


# what goes wrong with the disk


def test_a_log_is_emptied_also_where_its_end_cannot_be_kept(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.err"
    log.write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "worker-a.err.old").mkdir()

    with pytest.raises(OSError, match="directory"):
        bound(log)

    assert log.read_bytes() == b""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs Linux and root, to mount a small disk")
def test_a_log_that_has_filled_its_disk_makes_room(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.err"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MAX_BYTES + 65_536}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        log.write_bytes(b"x" * (MAX_BYTES + 1))
        with pytest.raises(OSError, match="No space left"):
            bound(log)
        assert log.stat().st_size == 0
    finally:
        subprocess.run(["umount", tmp_path], check=True)


async def test_a_log_that_cannot_be_kept_short_is_no_fault_of_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "worker-a.err"
    log.mkdir()
    monitor = Monitor(Clocks(heartbeat_s=0.01), log, OomLedger())
    await monitor.begin(os.getpid())

    with anyio.move_on_after(0.5) as scope:
        await monitor.first_fault(lambda: WorkerState.IDLE)

    assert scope.cancelled_caught, "nothing is wrong with it"
    assert monitor.missed_beats > 3
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"
    assert "Is a directory" in caplog.text


def test_logs_that_cannot_be_removed_stay_and_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stuck = [tmp_path / f"worker-a.{number}.err" for number in range(KEPT_OF_ONE_WORKER + 1)]
    for path in stuck:
        path.mkdir()
    _logs(tmp_path, *(f"worker-b{number}.err" for number in range(KEPT_FILES + 1)))

    prune_own(tmp_path, "worker-a")
    prune(tmp_path, set())
    worker_logs.remove(tmp_path, "worker-a")

    assert all(path.exists() for path in stuck)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert not (tmp_path / "worker-b0.err").exists(), "the others go all the same"


def test_a_directory_that_cannot_be_listed_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    prune(tmp_path / "file", set())
    prune(tmp_path / "gone", set())
