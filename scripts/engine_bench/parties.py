"""Whoever generates: a bare loop, the engine thread, the worker, a peer. Each is a block, and each is asked alike."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine_bench.answers import Answers, answers_of
from engine_bench.asking import OPENAI, WORKER, Ask, Dialect, ask_all
from engine_bench.serving import Serving
from engine_bench.words import Prompt
from measuring import new_home

_SCRIPTS = Path(__file__).resolve().parent.parent
_START_S = 600.0
_STOP_S = 30.0
_ASK_AGAIN_S = 0.05


class Party(Protocol):
    """Answers any number of prompts at once, up to its slots."""

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        """Every answer to its full length."""
        ...


@dataclass(frozen=True)
class Child:
    """`engine_bench.bare` or `engine_bench.alone`."""

    process: subprocess.Popen[str]

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompts": [prompt.ids for prompt in prompts], "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return answers_of(self.read(), [tokens] * len(prompts))

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait(_STOP_S)}")  # type: ignore[arg-type]
        return dict(json.loads(line))


@dataclass(frozen=True)
class Server:
    """Anything that answers over HTTP. `pid` None: it was there before."""

    url: str
    dialect: Dialect
    pid: int | None = None

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        return self.ask([Ask(prompt.text, tokens) for prompt in prompts])

    def ask(self, asks: Sequence[Ask]) -> Answers:
        return ask_all(self.url, self.dialect, asks)

    def peak_rss_bytes(self) -> int | None:
        """The most memory the process has had so far; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(lines[0][1]) * 1024

    def health(self) -> dict[str, Any]:
        return dict(json.loads(_get(self.url, "/health")[1]))


@contextmanager
def child(module: str, serving: Serving) -> Generator[Child]:
    """`engine_bench.MODULE`, with its model loaded."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"engine_bench.{module}", json.dumps(serving.facts())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_SCRIPTS)},
        text=True,
    )
    try:
        party = Child(process)
        party.read()
        yield party
    finally:
        process.kill()  # it holds nothing but memory
        process.communicate(timeout=_STOP_S)


@contextmanager
def worker(serving: Serving, options: Sequence[str] = ()) -> Generator[Server]:
    """A real worker in a home of its own, ready."""
    port = _free_port()
    flags = [
        *("--local-mode", "--model", str(serving.model), "--port", str(port), "--threads", str(serving.threads)),
        *("--slots", str(serving.slots), "--n-ctx", str(serving.n_ctx), "--kv", serving.kv, *options),
    ]
    with new_home() as cluster:
        running = cluster.start("llm-worker-rbee", *flags, stdout=subprocess.DEVNULL)
        server = Server(f"http://127.0.0.1:{port}", WORKER, running.pid)
        _wait_until_up(running.process, server.url, "/v1/ready", lambda: running.stderr)
        yield server
        running.process.terminate()
        running.wait(_STOP_S)


@contextmanager
def peer(command: str, serving: Serving, extra: dict[str, Any]) -> Generator[Server]:
    """The peer that `command` starts, ready; its whole process group ends with the block."""
    port = _free_port()
    argv = shlex.split(_fill_in(command, serving, port))
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(process, url, "/health", lambda: shlex.join(argv))
        yield Server(url, _openai(extra), process.pid)
    finally:
        with ExitStack() as stack:
            stack.callback(process.wait, _STOP_S)
            os.killpg(process.pid, signal.SIGKILL)


def standing_peer(url: str, extra: dict[str, Any]) -> Server:
    """A peer that somebody else started."""
    return Server(url.rstrip("/"), _openai(extra))


def _openai(extra: dict[str, Any]) -> Dialect:
    return Dialect(
        OPENAI.path, OPENAI.marker, OPENAI.body, OPENAI.tokens_field, OPENAI.cached_field, {"model": "bench", **extra}
    )
