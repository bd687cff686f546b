"""The real programs in a home of their own, as a user starts them; and proof that nothing of them stays behind.

Everything rbee starts inherits `RBEE_HOME`, so a process is one of ours exactly when its environment names that home.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx2
import psutil

from rbee_shared.file_lock import try_lock

BIN = Path(sys.executable).parent
PROGRAMS = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
GENEROUS_S = 60.0
NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # no test asks the real one


@dataclass
class Line:
    """What came out, where, and how long after the start."""

    stream: str
    text: str
    at_s: float


@dataclass
class Running:
    """A program started by a test, its output read as it comes."""

    process: subprocess.Popen[bytes]
    began_s: float = field(default_factory=time.monotonic)
    lines: list[Line] = field(default_factory=list)
    stdout_bytes: bytes = b""
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            if stream is not None:
                reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
                reader.start()
                self._readers.append(reader)

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            while chunk := os.read(stream.fileno(), 65536):
                if name == "out":
                    self.stdout_bytes += chunk
                for text in chunk.decode(errors="replace").splitlines():
                    self.lines.append(Line(name, text, time.monotonic() - self.began_s))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode()

    @property
    def stderr(self) -> str:
        return "\n".join(line.text for line in self.lines if line.stream == "err")

    def wait(self, within_s: float = GENEROUS_S) -> int:
        """Its exit status, with all output read."""
        status = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(10)
        return status

    def wait_for(self, text: str, within_s: float = GENEROUS_S) -> None:
        """Return when `text` stands in a line of its output."""
        wait_until(lambda: any(text in line.text for line in self.lines), within_s, f"{text!r} in\n{self.stderr}")


def wait_until(condition: Any, within_s: float, what: str) -> float:
    """Poll until `condition()` is true; the seconds that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began_s


class Cluster:
    """One home; `env` goes to every program."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
        self.env = (
            inherited | NO_HUB | {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_QUEEN_HIVE_PORT": "0", **env}
        )
        self.killed: set[str] = set()
        self._running: list[Running] = []

    # starting programs

    def start(self, program: str, *args: str, stdin: bytes | None = None, **options: Any) -> Running:
        """Start a program; its output is collected."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": str(self.home.parent), **options}
        popen = subprocess.Popen(
            [str(BIN / program), *args],
            env=self.env | options.pop("env", {}),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            **options,
        )
        if stdin is not None and popen.stdin is not None:
            popen.stdin.write(stdin)
            popen.stdin.close()
        running = Running(popen)
        self._running.append(running)
        return running

    def keeper(self, *args: str, within_s: float = GENEROUS_S, **options: Any) -> Running:
        """Run `rbee-keeper` to its end."""
        running = self.start("rbee-keeper", *args, **options)
        running.wait(within_s)
        return running

    def standing_queen(self) -> str:
        """Start a queen as an operator does; her URL."""
        self.start("queen-rbee", "daemon")
        return self.queen_url()

    # looking at them

    def queen_url(self) -> str:
        return str(self.run_file("queen-rbee")["url"])

    def run_file(self, program: str) -> dict[str, Any]:
        path = self.home / "run" / socket.gethostname() / f"{program}.json"
        wait_until(path.exists, GENEROUS_S, f"{path} is written")
        return dict(json.loads(path.read_text()))

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def http(self, *, token: bool = True, timeout_s: float = GENEROUS_S) -> httpx2.Client:
        """A client of the queen."""
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return httpx2.Client(base_url=self.queen_url(), headers=headers, timeout=timeout_s, trust_env=False)

    def processes(self, program: str = "") -> list[psutil.Process]:
        """Every living process of this home whose command line names `program`."""
        return [process for process in _living(str(self.home)) if program in " ".join(_cmdline(process))]

    def only(self, program: str) -> psutil.Process:
        """The one process of that program, waited for."""
        wait_until(lambda: len(self.processes(program)) == 1, GENEROUS_S, f"one {program} runs")
        return self.processes(program)[0]

    def seen_alive(self, *programs: str) -> None:
        """The leak check sees these processes now: it would see them if they stayed."""
        for program in programs:
            assert self.processes(program), f"{program} is not seen alive"

    def all_gone(self, within_s: float, *programs: str) -> float:
        """Wait until no process of these programs (or of any) is left; the seconds that took."""

        def left() -> list[psutil.Process]:
            return [process for program in programs or ("",) for process in self.processes(program)]

        return wait_until(lambda: not left(), within_s, f"gone: {[_cmdline(process) for process in left()]}")

    def leaves_nothing(self) -> None:
        """No process, no run file (but those of `killed` programs), no partial file, no lock that is held."""
        self.all_gone(15)
        files = [path for path in self.home.rglob("*") if path.is_file() and path.stem not in self.killed]
        if "rbee-hive" in self.killed:  # the notes of its workers are for the hive after it
            files = [path for path in files if path.parent.name != "workers"]
        left = [path for path in files if path.name.endswith((".partial", ".json"))]
        assert not left, f"left behind: {left}"
        for database in self.home.glob("*.db"):
            assert_not_locked(database)
        for lock in self.home.rglob("*.lock"):
            descriptor = try_lock(lock)
            assert descriptor is not None, f"somebody still holds {lock}"
            os.close(descriptor)

    def close(self) -> None:
        """End whatever a failed test left."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for running in self._running:
            with suppress(subprocess.TimeoutExpired):
                running.wait(10)


def _living(home: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get("RBEE_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def assert_not_locked(database: Path) -> None:
    """An exclusive transaction succeeds at once."""
    import sqlite3  # noqa: PLC0415 - nobody else here needs it

    connection = sqlite3.connect(database, timeout=1, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def frames_of(text: str) -> list[dict[str, Any]]:
    """The data of every event of an SSE body, with its id; `[DONE]` left out."""
    frames = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields and fields["data"] != "[DONE]":
            frames.append({**json.loads(fields["data"]), "_id": fields.get("id")})
    return frames
