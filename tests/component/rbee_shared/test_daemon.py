"""A daemon's life as real processes: how it starts, how it stops, and that it never outlives its parent."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

import psutil
import pytest
from tests.support.processes import alive, processes_with_env, wait_gone, wait_until

from rbee_shared.errors import InvalidRequestError
from rbee_shared.handshake import MAX_BYTES, Handshake, read_handshake

_PROGRAMS = Path(__file__).parents[2] / "support" / "programs"
_PATIENCE_S = 30.0
Popen = subprocess.Popen[bytes]
Start = Callable[..., Popen]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    """Start a program with its home in `tmp_path`; whatever it leaves behind is found and killed."""
    started: list[Popen] = []
    environment = {**os.environ, "RBEE_HOME": str(tmp_path / "home"), "RBEE_CLOCK_HANDSHAKE_S": "2"}

    def begin(program: str, *arguments: str, **more: object) -> Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        popen: Popen = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, str(_PROGRAMS / program), *arguments], env=environment, bufsize=0, **{**pipes, **more}
        )
        started.append(popen)
        return popen

    yield begin
    left = processes_with_env("RBEE_HOME", str(tmp_path / "home"))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for popen in started:
        popen.wait(_PATIENCE_S)
        for stream in (popen.stdin, popen.stdout, popen.stderr):
            if stream is not None:
                stream.close()


def _hand_over(popen: Popen, **facts: bool) -> None:
    _write(popen, Handshake.from_here(**facts))


def _write(popen: Popen, handshake: Handshake) -> None:
    assert popen.stdin is not None
    popen.stdin.write(handshake.line())
    popen.stdin.flush()


def _line(stream: IO[bytes] | None) -> str:
    assert stream is not None
    ready, _, _ = select.select([stream], [], [], _PATIENCE_S)
    assert ready, "it says nothing"
    return stream.readline().decode()


def _records(popen: Popen) -> list[dict[str, object]]:
    assert popen.stdout is not None
    return [json.loads(line) for line in popen.stdout.read().splitlines()]


def _until_up(popen: Popen, *, with_parent: bool) -> None:
    if with_parent:
        assert json.loads(_line(popen.stdout))["human"] == "tiny is up"
        assert json.loads(_line(popen.stdout))["type"] == "listening"
    else:
        assert _line(popen.stderr) == "hive: tiny is up\n"


# with a parent


def test_term_is_a_gentle_end_and_everything_is_told(start: Start) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin")
    _hand_over(popen)
    _until_up(popen, with_parent=True)
    popen.send_signal(signal.SIGTERM)
    assert popen.wait(_PATIENCE_S) == 0
    (last,) = _records(popen)
    assert (last["type"], last["n"], last["human"]) == ("narration", 2, "stopping gently: received SIGTERM")


def test_a_parents_end_of_file_is_an_abrupt_end(start: Start) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin")
    _hand_over(popen)
    _until_up(popen, with_parent=True)
    assert popen.stdin is not None
    popen.stdin.write(b"what follows the handshake is ignored\n" * 1000)
    popen.stdin.flush()
    assert popen.poll() is None
    popen.stdin.close()
    assert popen.wait(_PATIENCE_S) == 0
    assert [each["human"] for each in _records(popen)] == ["stopping abruptly: the parent is gone"]


def test_an_ephemeral_daemon_outlives_its_spawner(start: Start) -> None:
    popen = start("tiny_daemon.py", "serves")  # no PDEATHSIG, no lifeline
    _until_up(popen, with_parent=False)
    assert popen.stdin is not None
    popen.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        popen.wait(0.3)


@pytest.mark.parametrize(
    "sent",
    [b"", b"{}\n", b"not json\n", b"[1]\n", b"[" * 60_000 + b"\n", b"x" * (MAX_BYTES + 10), b'{"parent_pid": "x"}\n'],
)
def test_without_a_handshake_there_is_no_daemon(start: Start, sent: bytes) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin")
    assert popen.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        popen.stdin.write(sent)
        popen.stdin.close()
    assert popen.wait(_PATIENCE_S) == 1
    (failed,) = _records(popen)
    assert failed["type"] == "failed"
    assert failed["error"]["code"] == "INVALID_REQUEST"  # type: ignore[index]


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, subprocess.PIPE], ids=["null", "silent"])
def test_a_handshake_that_never_comes_is_not_waited_for_for_ever(start: Start, stdin: int) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin", stdin=stdin)
    assert popen.wait(_PATIENCE_S) == 1


def test_a_parent_that_was_gone_before_is_noticed(start: Start) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin")
    assert popen.stdin is not None
    me = psutil.Process()
    popen.stdin.write(Handshake(parent_pid=me.pid, parent_create_time=me.create_time() - 100).line())
    popen.stdin.flush()
    assert popen.wait(_PATIENCE_S) == 0
    assert "the parent was gone before we were up" in str(_records(popen)[-1]["human"])


@pytest.mark.parametrize(("body", "code"), [("refuses", "MODEL_INVALID"), ("breaks", "INTERNAL")])
def test_a_failing_body_is_told_to_the_parent(start: Start, body: str, code: str) -> None:
    popen = start("tiny_daemon.py", body, "--parent", "stdin")
    _hand_over(popen)
    assert popen.wait(_PATIENCE_S) == 1
    (failed,) = _records(popen)
    assert (failed["type"], failed["error"]["code"]) == ("failed", code)  # type: ignore[index]


def test_a_parent_that_has_closed_the_pipe_is_not_noticed(start: Start, tmp_path: Path) -> None:
    popen = start("tiny_daemon.py", "serves", "--parent", "stdin")
    assert popen.stdout is not None
    popen.stdout.close()
    _hand_over(popen)
    log = tmp_path / "home" / "logs" / "tiny.log"
    wait_until(lambda: log.exists() and b"tiny is up" in log.read_bytes(), _PATIENCE_S, "it is up")
    assert popen.stdin is not None
    popen.stdin.close()
    assert popen.wait(_PATIENCE_S) == 0


# with a parent at the far end of a connection


def _up_over_ssh(start: Start, **more: object) -> Popen:
    popen = start("tiny_daemon.py", "outlives", "--parent", "ssh", **more)
    _write(popen, Handshake.from_afar(epoch=1))
    _until_up(popen, with_parent=True)
    return popen


def _heard(popen: Popen) -> str:
    return str(json.loads(_line(popen.stdout))["human"])


def test_the_end_of_a_connection_is_news_and_no_end(start: Start) -> None:
    popen = _up_over_ssh(start)
    assert popen.stdin is not None
    popen.stdin.close()
    assert _heard(popen) == "hung up"
    with pytest.raises(subprocess.TimeoutExpired):
        popen.wait(0.5)
    popen.terminate()
    assert popen.wait(_PATIENCE_S) == 0


def test_hangup_signals_say_nothing_and_hide_no_other_signal(start: Start) -> None:
    popen = start("tiny_daemon.py", "outlives", "--parent=ssh")
    wait_until(lambda: _ignores_hangup(popen.pid), _PATIENCE_S, "it has begun")
    popen.send_signal(signal.SIGHUP)
    _write(popen, Handshake.from_afar())
    _until_up(popen, with_parent=True)
    for _ in range(500):
        popen.send_signal(signal.SIGHUP)
    assert popen.poll() is None
    popen.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    while popen.poll() is None:
        assert time.monotonic() < deadline, "the storm has hidden the signal that ends it"
        popen.send_signal(signal.SIGHUP)
    assert popen.returncode == 0
    assert _records(popen) == []


def _ignores_hangup(pid: int) -> bool:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    return bool(int(status["SigIgn"], 16) & 1)  # SIGHUP is number 1


def test_the_news_waits_for_who_will_hear_it(start: Start) -> None:
    popen = start("tiny_daemon.py", "outlives", "--parent", "ssh")
    _write(popen, Handshake.from_afar())
    assert popen.stdin is not None
    popen.stdin.close()
    _until_up(popen, with_parent=True)
    assert _heard(popen) == "hung up"
    popen.terminate()
    assert popen.wait(_PATIENCE_S) == 0


@pytest.mark.parametrize("how", ["gone", "gone with unread lines"])
def test_a_socket_in_the_place_of_both_pipes_may_be_reset(start: Start, tmp_path: Path, how: str) -> None:
    """As some SSH servers have it: one socket is stdin and stdout, and its death with lines unread is a reset."""
    ours, its = socket.socketpair()
    with ours, its:
        popen = start("tiny_daemon.py", "outlives", "--parent", "ssh", stdin=its, stdout=its)
        ours.sendall(Handshake.from_afar().line())
        ours.settimeout(_PATIENCE_S)
        read, log = ours.makefile("rb"), tmp_path / "home" / "logs" / "tiny.log"
        if how == "gone":
            assert json.loads(read.readline())["human"] == "tiny is up"
            assert json.loads(read.readline())["type"] == "listening"
        else:
            wait_until(lambda: log.exists() and b"tiny is up" in log.read_bytes(), _PATIENCE_S, "it is up")
            time.sleep(0.2)  # until the lines are in the socket
        read.close()
    wait_until(lambda: b"hung up" in log.read_bytes(), _PATIENCE_S, "it has noticed")
    assert popen.poll() is None
    popen.terminate()
    assert popen.wait(_PATIENCE_S) == 0
    assert b"failed" not in log.read_bytes()


def test_a_stdout_that_is_closed_at_once_is_not_noticed(start: Start, tmp_path: Path) -> None:
    popen = start("tiny_daemon.py", "outlives", "--parent", "ssh")
    assert popen.stdout is not None
    popen.stdout.close()
    _write(popen, Handshake.from_afar())
    log = tmp_path / "home" / "logs" / "tiny.log"
    wait_until(lambda: log.exists() and b"tiny is up" in log.read_bytes(), _PATIENCE_S, "it is up")
    popen.terminate()
    assert popen.wait(_PATIENCE_S) == 0


def test_a_handshake_from_a_file_has_nobody_who_holds_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "handshake").write_bytes(Handshake.from_afar().line())
    with (tmp_path / "handshake").open("rb") as file:
        popen = start("tiny_daemon.py", "outlives", "--parent", "ssh", stdin=file)
    _until_up(popen, with_parent=True)
    assert _heard(popen) == "hung up"
    popen.terminate()
    assert popen.wait(_PATIENCE_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("arguments", [("--parent", "ssh"), ("--parent=ssh",)])
def test_the_death_of_the_server_that_started_it_is_not_its_own(
    start: Start, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    line, child_file = tmp_path / "line", tmp_path / "pid"
    line.write_bytes(Handshake.from_afar().line())
    command = f'"{sys.executable}" "{_PROGRAMS / "tiny_daemon.py"}" outlives {" ".join(arguments)}'
    script = f"{command} < {line} & echo $! > {child_file}"
    server = subprocess.Popen(
        ["/bin/sh", "-c", f"{script}; wait"], env={**os.environ, "RBEE_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = tmp_path / "home" / "logs" / "tiny.log"
    wait_until(lambda: log.exists() and b"tiny is up" in log.read_bytes(), _PATIENCE_S, "it is up")
    server.kill()
    server.wait(_PATIENCE_S)
    time.sleep(0.5)
    assert alive(int(child_file.read_text()))


# an operator's


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_operator_may_stop_it_by_signal(start: Start, number: signal.Signals) -> None:
    popen = start("tiny_daemon.py", "serves", stdin=subprocess.DEVNULL, preexec_fn=_with_hangup(signal.SIG_DFL))
    _until_up(popen, with_parent=False)
    popen.send_signal(number)
    assert popen.wait(_PATIENCE_S) == 0
    assert _line(popen.stderr) == f"hive: stopping gently: received {number.name}\n"


def test_nohup_keeps_it(start: Start) -> None:
    popen = start("tiny_daemon.py", "serves", stdin=subprocess.DEVNULL, preexec_fn=_with_hangup(signal.SIG_IGN))
    _until_up(popen, with_parent=False)
    popen.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        popen.wait(0.5)


def _with_hangup(handler: signal.Handlers) -> Callable[[], object]:
    return lambda: signal.signal(signal.SIGHUP, handler)


def test_a_second_interrupt_insists(start: Start) -> None:
    popen = start("tiny_daemon.py", "clings", stdin=subprocess.DEVNULL)
    _until_up(popen, with_parent=False)
    popen.send_signal(signal.SIGINT)
    assert "draining" in _line(popen.stderr)
    popen.send_signal(signal.SIGINT)
    assert popen.wait(_PATIENCE_S) == 128 + signal.SIGINT


@pytest.mark.parametrize(("body", "text"), [("refuses", "not a model"), ("breaks", "LookupError: unforeseen")])
def test_a_failing_body_is_told_to_the_operator(start: Start, body: str, text: str) -> None:
    popen = start("tiny_daemon.py", body, stdin=subprocess.DEVNULL)
    assert popen.wait(_PATIENCE_S) == 1
    assert popen.stderr is not None
    said = popen.stderr.read().decode()
    assert re.match(r"tiny: error: .+ \([A-Z_]+\)\n  next: .+\n", said)
    assert text in said
    assert "\x1b" not in said
    assert popen.stdout is not None
    assert popen.stdout.read() == b"", "stdout is for records only"


def test_a_body_that_returns_ends_well_and_its_files_are_private(start: Start, tmp_path: Path) -> None:
    popen = start("tiny_daemon.py", "ends", stdin=subprocess.DEVNULL)
    assert popen.wait(_PATIENCE_S) == 0
    found = list((tmp_path / "home").rglob("*"))
    assert any(path.name == "tiny.log" for path in found)
    assert [path for path in [tmp_path / "home", *found] if path.stat().st_mode & 0o077] == []


def test_a_wrong_clock_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("[clocks]\nheart = 1\n")
    popen = start("tiny_daemon.py", "ends")
    assert popen.wait(_PATIENCE_S) == 1
    assert popen.stderr is not None
    assert b"unknown clocks: heart" in popen.stderr.read()


def test_closed_standard_descriptors_are_not_taken_by_files(start: Start, tmp_path: Path) -> None:
    """`queen-rbee daemon <&- >&- 2>&-`: else the first file opened gets number 2, and all narration."""
    script = f'exec "{sys.executable}" "{_PROGRAMS / "tiny_daemon.py"}" serves <&- >&- 2>&-'
    environment = {**os.environ, "RBEE_HOME": str(tmp_path / "home")}
    popen = subprocess.Popen(["/bin/sh", "-c", script], env=environment)
    log = tmp_path / "home" / "logs" / "tiny.log"
    try:
        wait_until(lambda: log.exists() and b"tiny is up" in log.read_bytes(), _PATIENCE_S, "it is up")
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/{popen.pid}/fd/{number}") == os.devnull  # noqa: PTH115
    finally:
        popen.terminate()
        assert popen.wait(_PATIENCE_S) == 0
    assert b"\nhive: " not in log.read_bytes(), "the lines for people are not in the log file"


# three levels


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("body", ["serves", "clings", "blocks"])
def test_a_killed_parent_takes_its_child_along(start: Start, tmp_path: Path, body: str) -> None:
    parent = start("tiny_parent.py", body, str(tmp_path))
    child = int(_line(parent.stdout))
    found = {process.pid for process in processes_with_env("RBEE_HOME", str(tmp_path / "home"))}
    assert found == {parent.pid, child}, "the leak check sees who lives"
    assert os.getsid(child) == child, "in a session of its own"

    began = time.monotonic()
    parent.kill()
    parent.wait(_PATIENCE_S)
    wait_gone([child], 10)
    assert time.monotonic() - began < 10
    assert processes_with_env("RBEE_HOME", str(tmp_path / "home")) == []


# the handshake's line


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_what_follows_the_line_is_left_in_the_pipe(pipe: tuple[int, int]) -> None:
    read, write = pipe
    sent = Handshake.from_here(token="t", epoch=3, queen_url="http://q", correlation_id="req-1")
    os.write(write, sent.line() + b"the lifeline")
    assert read_handshake(5, read) == sent
    assert os.read(read, 100) == b"the lifeline"
    assert sent.parent_alive


def test_slow_bytes_are_put_together_within_the_time(pipe: tuple[int, int]) -> None:
    read, write = pipe
    line = Handshake.from_here().line()
    script = f"import os, time\nfor byte in {line!r}:\n os.write(1, bytes([byte]))\n time.sleep(0.001)"
    with subprocess.Popen([sys.executable, "-S", "-c", script], stdout=write) as writer:
        assert read_handshake(_PATIENCE_S, read).parent_pid == os.getpid()
        assert writer.wait(_PATIENCE_S) == 0


def test_a_newer_parents_facts_are_ignored_and_time_is_bounded(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.write(write, b'{"parent_pid": 1, "parent_create_time": 1, "from_the_future": 1}\n{"parent_pid"')
    assert read_handshake(1, read).parent_pid == 1
    with pytest.raises(InvalidRequestError):
        read_handshake(0.1, read)


@pytest.mark.parametrize(
    "line",
    [
        b'{"parent_pid": NaN, "parent_create_time": 1}\n',
        b'{"parent_pid": 1e999, "parent_create_time": 1}\n',
        b"\n",
        b"\xff\n",
    ],
)
def test_garbage_is_no_handshake(pipe: tuple[int, int], line: bytes) -> None:
    read, write = pipe
    os.write(write, line)
    with pytest.raises(InvalidRequestError):
        read_handshake(1, read)


def test_a_closed_stdin_is_no_handshake(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(InvalidRequestError):
        read_handshake(1, pipe[0])


@pytest.mark.parametrize("pid", [2**22 + 5, 2**70, -3, 0])
def test_a_parent_that_cannot_exist_is_dead(pid: int) -> None:
    assert not Handshake(parent_pid=pid, parent_create_time=12.0).parent_alive
