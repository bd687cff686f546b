"""One program of a worker build: its output, its end, and that nothing of it stays behind."""

import os
import signal
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from tests.support.processes import alive, wait_gone, wait_until

from rbee_hive.builds.step import StepEnd, StepPlace, run_step


async def _run(log: Path, *argv: str, heard: list[str] | None = None) -> StepEnd:
    lines: list[str] = [] if heard is None else heard
    return await run_step(argv, os.environ, StepPlace(log, silence_s=30), lines.extend)


def _pid(path: Path) -> int:
    """What a program wrote there once it was up."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), 20, f"{path} is written")
    return int(path.read_text())


async def test_every_line_is_heard_once_and_in_order_whatever_it_holds(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier step\n")
    script = (
        "import sys, time\n"
        "for n in range(300): print(f'line {n}', flush=n % 50 == 0)\n"
        "sys.stdout.flush(); time.sleep(0.3)\n"
        "sys.stderr.buffer.write(b'\\xff\\x1b[31m red \\x00 token=abcdefgh12345678\\n')\n"
        "print('x' * 200_000); print('last')"
    )
    heard: list[str] = []
    end = await _run(tmp_path / "log", sys.executable, "-c", script, heard=heard)

    assert end.status == 0
    assert heard[:300] == [f"line {n}" for n in range(300)]
    assert len(heard) == 303
    assert "\x1b" not in heard[300]
    assert "abcdefgh12345678" not in heard[300], "secrets are not repeated"
    assert len(heard[301]) <= 64 * 1024, "and a line is bounded"
    assert end.lines[-1] == heard[302] == "last"
    assert (tmp_path / "log").stat().st_mode & 0o077 in {0, 0o044}, "as the log was"


@pytest.mark.parametrize(
    ("script", "status", "how"),
    [
        ("raise SystemExit(3)", 3, "exit 3"),
        ("import os; os.kill(os.getpid(), 11)", 139, "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", 137, "killed by SIGKILL"),
    ],
)
async def test_how_a_program_ended_is_told(tmp_path: Path, script: str, status: int, how: str) -> None:
    end = await _run(tmp_path / "log", sys.executable, "-c", script)
    assert (end.status, end.how) == (status, how)


async def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    end = await _run(tmp_path / "log", str(tmp_path / "missing"))
    assert end.status == 127
    assert "cannot start" in end.lines[-1]


async def test_a_log_that_somebody_removes_does_not_end_the_step(tmp_path: Path) -> None:
    script = f"import os; os.unlink({str(tmp_path / 'log')!r}); print('unheard')"
    assert (await _run(tmp_path / "log", sys.executable, "-c", script)).status == 0


async def test_what_a_program_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    left = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + chr(10)); time.sleep(600)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {left!r}], start_new_session=True)"
    script += f"\nimport os, time\nwhile not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)"
    end = await _run(tmp_path / "log", sys.executable, "-c", script)

    assert end.status == 0
    if sys.platform == "linux":  # elsewhere an orphan belongs to nobody
        await anyio.to_thread.run_sync(wait_gone, [_pid(tmp_path / "pid")], 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which keeps a dead process for its parent to look at")
async def test_a_guard_that_is_killed_takes_its_group_along(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + chr(10)); time.sleep(600)"
    ends: list[StepEnd] = []

    async def run() -> None:
        ends.append(await _run(tmp_path / "log", sys.executable, "-c", script))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        pid = await anyio.to_thread.run_sync(_pid, tmp_path / "pid")
        assert alive(pid)
        guard = psutil.Process(pid).parent()
        assert guard is not None
        guard.send_signal(signal.SIGKILL)

    assert ends[0].how == "killed by SIGKILL"
    await anyio.to_thread.run_sync(wait_gone, [pid], 2.0)
