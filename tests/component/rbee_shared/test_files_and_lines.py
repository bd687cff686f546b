"""The token file, the run file and the narration's pipe, with those who race for them, die with them or never read."""

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.support.processes import wait_until

from rbee_shared.auth import read_or_make_token, read_token
from rbee_shared.errors import ForbiddenError, MissingApiKeyError
from rbee_shared.file_lock import try_lock
from rbee_shared.line_writer import LineWriter
from rbee_shared.paths import Home
from rbee_shared.run_file import claimed_daemon, read_run_file, run_file

_PATIENCE_S = 20.0

# the token


def test_twenty_programs_that_start_at_once_agree_on_one_token(tmp_path: Path) -> None:
    script = "import sys\nfrom pathlib import Path\nfrom rbee_shared.auth import read_or_make_token\n"
    script += "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()\n"
    script += "sys.stdout.write(read_or_make_token(Path(sys.argv[1])))"
    with contextlib.ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script, str(tmp_path / "token")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            for _ in range(20)
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
        tokens = {program.stdout.read() for program in programs if program.stdout is not None}
    assert len(tokens) == 1
    assert len(tokens.pop()) >= 43
    assert os.listdir(tmp_path) == ["token"], "no draft is left"  # noqa: PTH208


def test_threads_agree_too_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    old = os.umask(0)
    try:
        with ThreadPoolExecutor(20) as pool:
            tokens = set(pool.map(read_or_make_token, [path] * 100))
    finally:
        os.umask(old)
    assert len(tokens) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    read_or_make_token(path)
    path.chmod(mode)
    for read in (read_token, read_or_make_token):
        with pytest.raises(ForbiddenError) as raised:
            read(path)
        assert raised.value.hint == f"chmod 600 {path}"
        assert path.stat().st_mode & 0o777 == mode, "it is said, never mended in silence"


@pytest.mark.parametrize("content", [b"two words", b"a\nb", b"\xff\xfe", b"t\x00n", "töken".encode(), b"\x1b[31m"])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ForbiddenError, match="holds no token"):
        read_token(path)


def test_no_file_an_empty_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(MissingApiKeyError, match="no token file"):
        read_token(path)
    path.write_text(" \n")
    path.chmod(0o600)
    with pytest.raises(MissingApiKeyError, match="is empty"):
        read_token(path)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(ForbiddenError, match="cannot be read"):
        read_token(path)


def test_a_home_is_private_and_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home").ensure().ensure()
    for directory in (home.root, home.models, home.logs, home.run):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


# the run file


def test_a_daemon_is_found_while_it_runs_and_not_after(tmp_path: Path) -> None:
    path = tmp_path / "queen.json"
    assert read_run_file(path) is None
    with run_file(path, url="http://127.0.0.1:8080", instance="abc"):
        found = read_run_file(path)
        assert found is not None
        assert (found.url, found.pid, found.instance, found.alive) == (
            "http://127.0.0.1:8080",
            os.getpid(),
            "abc",
            True,
        )
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_successors_file_is_not_withdrawn(tmp_path: Path) -> None:
    path = tmp_path / "queen.json"
    with contextlib.ExitStack() as stack:
        with run_file(path, url="http://old", instance="old"):
            stack.enter_context(run_file(path, url="http://new", instance="new"))
        found = read_run_file(path)
        assert found is not None
        assert found.instance == "new"


def test_a_killed_daemons_file_is_not_believed_nor_is_its_lock_held(tmp_path: Path) -> None:
    path, lock = tmp_path / "queen.json", tmp_path / "queen.lock"
    script = "import sys\nfrom pathlib import Path\n"
    script += "from rbee_shared.file_lock import try_lock\nfrom rbee_shared.run_file import run_file\n"
    script += "assert try_lock(Path(sys.argv[2])) is not None\n"
    script += (
        "with run_file(Path(sys.argv[1]), url='http://x', instance='i'):\n print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        assert read_run_file(path) is not None
        assert try_lock(lock) is None
        daemon.kill()
        wait_until(lambda: read_run_file(path) is None, _PATIENCE_S, "a zombie is not believed")
        descriptor = try_lock(lock)
        assert descriptor is not None
        os.close(descriptor)
    assert claimed_daemon(path) is not None, "it says what it said"
    assert read_run_file(path) is None


def test_a_pid_that_somebody_else_has_now_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "queen.json"
    me = psutil.Process()
    facts = {"url": "u", "pid": me.pid, "create_time": me.create_time() - 5, "instance": "i"}
    path.write_text(json.dumps(facts))
    assert read_run_file(path) is None
    path.write_text(json.dumps({**facts, "create_time": me.create_time()}))
    assert read_run_file(path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "\0", "[" * 50_000, '{"url": "u"}',
        '{"url": "u", "pid": "x", "create_time": 1, "instance": "i"}',
        '{"url": "u", "pid": -5, "create_time": 1, "instance": "i"}',
        '{"url": "u", "pid": Infinity, "create_time": 1, "instance": "i"}',
        '{"url": "u", "pid": 1180591620717411303424, "create_time": 1, "instance": "i"}',
        '{"url": "u", "pid": 1, "create_time": NaN, "instance": "i"}',
    ],
)  # fmt: skip
def test_garbage_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "queen.json"
    path.write_text(text)
    assert read_run_file(path) is None


def test_a_lock_is_one_holders_and_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    assert fcntl.fcntl(first, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(first)
    second = try_lock(path)
    assert second is not None
    os.close(second)


# lines into a pipe


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _read_lines(descriptor: int, count: int) -> list[bytes]:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(descriptor, 65536)
    return data.split(b"\n")[:-1]


def test_lines_keep_their_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    undelivered: list[str] = []
    writer = LineWriter(write, undelivered.append)
    lines = [f"{number} é \ud800" for number in range(5000)]
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_lines, read, 5000)
        for line in lines:
            writer.write(line)
        assert [int(line.split()[0]) for line in reading.result(_PATIENCE_S)] == list(range(5000))
    writer.close()
    assert undelivered == []


def test_a_reader_that_has_stopped_stops_nobody_and_no_line_is_lost_unnoticed(pipe: tuple[int, int]) -> None:
    read, write = pipe
    undelivered: list[str] = []
    writer = LineWriter(write, undelivered.append)
    line = "x" * 1000
    for _ in range(20_000):
        writer.write(line)  # a pipe takes 64 KiB, the backlog 10,000 lines
    writer.close(0.1)
    delivered = len(_read_lines(read, 65))
    assert len(undelivered) + delivered + 2 >= 20_000
    assert len(undelivered) > 19_900
    writer.write("after the end")
    assert undelivered[-1] == "after the end"
    writer.close(0.1)


def test_a_broken_pipe_is_not_noticed(pipe: tuple[int, int]) -> None:
    read, write = pipe
    undelivered: list[str] = []
    writer = LineWriter(write, undelivered.append)
    os.close(read)
    for number in range(100):
        writer.write(str(number))
    writer.close()
    assert undelivered == [str(number) for number in range(100)]


def test_a_descriptor_made_non_blocking_by_others_loses_nothing(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_blocking(write, False)
    undelivered: list[str] = []
    writer = LineWriter(write, undelivered.append)
    for number in range(500):
        writer.write(f"{number:0>1000}")
    assert [int(line) for line in _read_lines(read, 500)] == list(range(500))
    writer.close()
    assert undelivered == []


def test_a_narration_hub_speaks_numbered_records(pipe: tuple[int, int]) -> None:
    """In a process of its own, since a hub speaks on descriptor 1."""
    script = (
        "from rbee_shared.narration_hub import NarrationHub\nfrom rbee_shared.narration import Narration, Narrator\n"
        "hub = NarrationHub(has_parent=True)\nheard = []\nhub.on_publish(heard.append)\n"
        "for i in range(300): Narrator('hive', hub.publish).tell('count', f'line {i} \\u2028 \\x1b[0m', number=i)\n"
        "hub.announce('listening', url='u', instance='i')\n"
        "assert hub.said == len(heard) == hub.events.last_id == 300\nhub.close()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=_PATIENCE_S, check=True)
    *lines, announced = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["n"] for line in lines] == list(range(1, 301))
    assert [line["details"]["number"] for line in lines] == list(range(300))
    assert announced == {"type": "listening", "n": 300, "url": "u", "instance": "i"}
    assert done.stderr == b""


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_what_nobody_reads_is_in_the_log(tmp_path: Path, level: str) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom rbee_shared.logs import log_to_file\n"
        "from rbee_shared.narration_hub import NarrationHub\nfrom rbee_shared.narration import Narration\n"
        "log_to_file(Path(sys.argv[1]))\nhub = NarrationHub(has_parent=True)\n"
        "hub.publish(Narration('hive', 'say', 'token=abcdefghijklmnop was here', level=sys.argv[2]))\nhub.close()"
    )
    read, write = os.pipe()
    os.close(read)
    try:
        log = tmp_path / "x.log"
        subprocess.run([sys.executable, "-c", script, str(log), level], stdout=write, timeout=_PATIENCE_S, check=True)
    finally:
        os.close(write)
    text = log.read_text()
    assert "was here" in text
    assert "abcdefgh" not in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
