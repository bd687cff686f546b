"""The hive's command line in a home of its own: called, as a process, on a pseudo-terminal; and a scripted hive for it.

A process of its own takes half a second, so what needs none is called here, with the same arguments and streams. What
asks a Hub needs one: its library reads the environment once, when it is imported.
"""

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from fastapi import FastAPI

from rbee_hive.cli import all_commands
from rbee_shared.paths import Home
from rbee_shared.programs import program_argv
from rbee_shared.run_file import run_file
from rbee_shared.server import bind, serving, url_of

TOKEN = "cli-token-0123456789abcdef"
_PATIENCE_S = 60.0
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


@dataclass
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class HiveCli:
    """`root` is the test's own; the home is made by the commands themselves."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RBEE_", "HF_"))}
        ours = {"RBEE_HOME": str(self.home.root), "RBEE_CLOCK_SILENCE_S": "0", "TERM": "xterm"}
        return {**kept, **ours, **self.environment, **(extra or {})}

    def run(self, *args: str, env: Mapping[str, str] | None = None) -> Result:
        """Run it to its end in this process; nothing of it may be a terminal."""
        out, err = io.TextIOWrapper(io.BytesIO(), newline=""), io.TextIOWrapper(io.BytesIO(), newline="")
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(os, "environ", os.environ.copy())
            os.environ.clear()
            os.environ.update(self.env(env))
            patch.setattr(sys, "stdin", io.StringIO())
            with pytest.raises(SystemExit) as left:
                all_commands()(args=list(args), prog_name="rbee-hive")
        return Result(int(left.value.code or 0), _text(out), _text(err))

    def process(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Result:
        """Run it to its end as a process, without a terminal."""
        done = subprocess.run(
            [*program_argv("rbee-hive"), *args],
            stdin=subprocess.DEVNULL, capture_output=True, env=self.env(env), cwd=cwd, timeout=_PATIENCE_S, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def aprocess(self, *args: str, env: Mapping[str, str] | None = None) -> Result:
        """The same beside a server in the test's own event loop."""
        return await anyio.to_thread.run_sync(lambda: self.process(*args, env=env))

    def start(self, *args: str, **more: Any) -> "subprocess.Popen[bytes]":
        """Start it, with pipes."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*program_argv("rbee-hive"), *args], **{"env": self.env(), **pipes, **more})

    @contextmanager
    def terminal(self, *args: str, columns: int = 80) -> Generator["Terminal"]:
        """Start it on a terminal of its own; killed on leaving if it still runs."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = self.start(
            *args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(master, False)
        try:
            yield Terminal(master, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(_PATIENCE_S)
            os.close(master)


@dataclass
class Terminal:
    """What a person sees and types."""

    master: int
    process: "subprocess.Popen[bytes]"
    raw: str = ""

    def read(self) -> str:
        """What stands there, decoration left out."""
        try:
            while chunk := os.read(self.master, 65536):
                self.raw += chunk.decode()
        except (BlockingIOError, OSError):  # OSError: everybody has closed the other side
            pass
        return _STYLE.sub("", self.raw)

    def until(self, text: str) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while text not in self.read():
            assert self.process.poll() is None, f"it ended without {text!r}: {self.read()}"
            assert time.monotonic() < deadline_s, f"waited {_PATIENCE_S:.0f} s for {text!r}: {self.read()}"
            time.sleep(0.02)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait(self) -> int:
        deadline_s = time.monotonic() + _PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            self.read()
            time.sleep(0.02)
        self.read()
        return self.process.wait(1)


@asynccontextmanager
async def scripted_hive(cli: HiveCli, app: FastAPI) -> AsyncGenerator[str]:
    """`app` in the place of the hive of this home: this very process is the one that its run file names."""
    home = await anyio.to_thread.run_sync(cli.home.ensure)
    home.token.touch(0o600)
    home.token.write_text(TOKEN)
    listener = bind("127.0.0.1", 0)
    url = url_of(listener)
    published = ExitStack()
    async with serving(app, listener, header_s=5, drain_s=1):
        await anyio.to_thread.run_sync(
            published.enter_context, run_file(home.run_file("rbee-hive"), url=url, instance="scripted")
        )
        try:
            yield url
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(published.close)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
