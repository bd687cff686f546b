"""Starting who is measured: each party is a block, ready when it is entered and gone when it is left."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from measuring import new_home

from engine_bench.asking import OPENAI, WORKER
from engine_bench.parties import Child, Server
from engine_bench.serving import Serving

_SCRIPTS = Path(__file__).resolve().parent.parent
_START_S = 600.0
_STOP_S = 30.0
_ASK_AGAIN_S = 0.05


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
        party = Child(module, process)
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
    argv = shlex.split(filled_in(command, serving, port))
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(process, url, "/health", lambda: shlex.join(argv))
        yield replace(standing_peer(url, extra), pid=process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_S)


def standing_peer(url: str, extra: dict[str, Any]) -> Server:
    """A peer that somebody else started. `extra`: more fields of every request."""
    return Server(url.rstrip("/"), replace(OPENAI, extra={"model": "bench", **extra}))


def filled_in(command: str, serving: Serving, port: int) -> str:
    """`command` with its placeholders replaced; `{no}` is `no-` in mode split, as in `--{no}kv-unified`."""
    facts = {name: str(value) for name, value in serving.facts().items()}
    facts |= {"port": str(port), "no": "" if serving.kv == "unified" else "no-"}
    try:
        return command.format(**facts)
    except (KeyError, IndexError, ValueError) as error:
        raise SystemExit(f"--peer-command has a placeholder that is none of {', '.join(facts)}: {error!r}") from None


def _wait_until_up(process: subprocess.Popen[bytes], url: str, path: str, said: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + _START_S
    while not _is_up(url + path):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(f"nothing serves {url}:\n{said()}")
        time.sleep(_ASK_AGAIN_S)


def _is_up(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http URL
            return int(answer.status) in {200, 204}
    except (URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
