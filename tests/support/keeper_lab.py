"""The real keeper as a process, in a home of its own, with a scripted queen in the place of the real one.

The keeper starts `queen-rbee` from beside its own interpreter. So the lab makes a `bin/` with this environment's
interpreter and a `queen-rbee` that is the fake: production code finds, wakes and stops it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

FAKE_QUEEN = Path(__file__).with_name("fake_queen.py")
_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 30.0


@dataclass
class Result:
    status: int
    out: bytes
    err: str


@dataclass
class KeeperLab:
    """`root` is empty and the test's own. `queen_flags` script every queen that is started here."""

    root: Path
    queen_flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.root / "venv" / "bin").mkdir(parents=True)
        prefix = Path(sys.prefix)
        (self.root / "venv" / "lib").symlink_to(prefix / "lib")
        (self.root / "venv" / "pyvenv.cfg").write_bytes((prefix / "pyvenv.cfg").read_bytes())
        self.python.symlink_to(Path(sys.executable).resolve())
        self.home.mkdir()
        self.script_queen(*self.queen_flags)

    @property
    def python(self) -> Path:
        return self.root / "venv" / "bin" / "python"

    @property
    def home(self) -> Path:
        return self.root / "home"

    def script_queen(self, *flags: str) -> None:
        """From now on queens behave like this."""
        self.queen_flags = list(flags)
        script = f"import sys, runpy\nsys.argv[1:1] = {self.queen_flags!r}\n"
        script += f"runpy.run_path({str(FAKE_QUEEN)!r}, run_name='__main__')\n"
        self.python.with_name("queen-rbee").write_text(script)

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
        ours = {"RBEE_HOME": str(self.home), "RBEE_QUEEN_PORT": "0", "PYTHONPATH": str(_ROOT), "TERM": "xterm"}
        return {**kept, **ours, **self.environment, **(extra or {})}

    def argv(self, *args: str) -> list[str]:
        return [str(self.python), "-m", "rbee_keeper", *args]

    def keeper(self, *args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
        """Run it to its end."""
        done = subprocess.run(
            self.argv(*args),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.env(env),
            timeout=_PATIENCE_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def start_keeper(self, *args: str, **more: Any) -> "subprocess.Popen[bytes]":
        """Start it, with pipes."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self.argv(*args), env=self.env(), **{**pipes, **more})
        self.started.append(process)
        return process

    def start_queen(self, *flags: str, port: int = 0) -> str:
        """A queen that stands already; her URL."""
        argv = [str(self.python), str(FAKE_QUEEN), *flags, "daemon", "--port", str(port)]
        before = len(self.notes("listening"))
        with (self.root / "queen.err").open("ab") as err:
            self.started.append(subprocess.Popen(argv, env=self.env(), stdin=subprocess.DEVNULL, stderr=err))
        self.until(lambda: len(self.notes("listening")) > before)
        return str(self.notes("listening")[-1]["url"])

    def notes(self, what: str) -> list[dict[str, Any]]:
        """What happened to the queens."""
        try:
            lines = (self.home / "fake-queen.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [note for note in map(json.loads, lines) if note["what"] == what]

    def until(self, holds: Any) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s, f"waited {_PATIENCE_S:.0f} s in vain"
            time.sleep(0.02)

    def pause(self, seconds: float) -> None:
        """For what must not happen meanwhile."""
        time.sleep(seconds)

    def living(self) -> list[psutil.Process]:
        """Processes of this home, by its place in their environment."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RBEE_HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
            except psutil.Error:
                continue
        return mine

    def assert_nothing_left(self) -> None:
        self.until(lambda: not self.living())

    def close(self) -> None:
        for process in self.living():
            process.send_signal(signal.SIGKILL)
        for started in self.started:
            started.wait(10)
            for pipe in (started.stdout, started.stderr, started.stdin):
                if pipe is not None:
                    pipe.close()


def json_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def text_of(events: Sequence[Mapping[str, Any]]) -> str:
    return "".join(event["t"] for event in events if event["type"] == "token")
