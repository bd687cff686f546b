"""How long a user waits, and how fast an answer comes: the real programs, each in a home of its own.

All programs, the client that measures included, share this machine's cores. Missing a target is said in the table; the
exit status tells only whether it could be measured.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measuring import Figure, machine, machine_line, new_home, print_figures
from tests.support.cluster import BIN, Cluster, wait_until
from tests.support.models import endless_model

LONG_TOKENS = 1500
GENEROUS_S = 60.0
ASK_AGAIN_S = 0.002
_COMPLETE = re.compile(r"inference complete: (\d+) tokens in [^(]*\((\d+) tok/s\)")

FIGURES = {
    "help": Figure("rbee-keeper --help", "exec -> exit", target=0.3),
    "queen": Figure("queen up", "exec of `queen-rbee daemon` in a new home -> /health answers 200", target=1.5),
    "hive": Figure("hive up", "exec of `rbee-hive daemon` in a new home -> /health answers 200", target=1.0),
    "all_off": Figure(
        "all off -> first token",
        "exec of `rbee-keeper infer hello` in a new home -> first byte on its stdout: wakes queen, hive and worker",
        target=4.0,
    ),
    "prompt_back": Figure(
        "answer -> shell prompt", "the same command: last byte of the answer -> exit, all it woke is gone", target=2.0
    ),
    "warm_queen": Figure(
        "warm queen -> first token", "standing queen, hive up and adopted, no worker: exec -> first byte", target=3.0
    ),
    "warm_worker": Figure("warm worker -> first token", "worker idle: exec of the keeper -> first byte", target=0.15),
    "api": Figure(
        "warm worker -> first token, API",
        "worker idle, connection open: POST /v2/tasks sent -> first token frame received; median of 5 a round",
        target=0.03,
    ),
    "chain": Figure(
        "tokens/s through the chain",
        f"warm worker, {LONG_TOKENS} tokens: (tokens - 1) / (first -> last byte on the keeper's stdout)",
        unit="tok/s",
        target=1000,
        at_least=True,
    ),
    "worker": Figure("tokens/s by the worker", "what the worker reports of that same answer", unit="tok/s"),
}


@dataclass(frozen=True)
class Timing:
    """Seconds after exec."""

    first_byte_s: float
    last_byte_s: float
    exit_s: float
    stderr: str


def timed(cluster: Cluster, *args: str) -> Timing:
    """Run the keeper; when its stdout began and ended, and when it was gone."""
    with tempfile.TemporaryFile() as stderr:
        began_s = time.perf_counter()
        keeper = subprocess.Popen(
            [str(BIN / "rbee-keeper"), *args],
            env=cluster.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert keeper.stdout is not None
        came_s = []
        with keeper.stdout as stdout:
            while os.read(stdout.fileno(), 65536):
                came_s.append(time.perf_counter() - began_s)
        status = keeper.wait(GENEROUS_S)
        exit_s = time.perf_counter() - began_s
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
    if status or (not came_s and args[0] == "infer"):
        raise SystemExit(f"rbee-keeper {' '.join(args)} ended with {status}:\n{said}")
    return Timing(came_s[0], came_s[-1], exit_s, said)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int) -> bool:
    """Whether /health answers 200 now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def time_up(cluster: Cluster, program: str) -> float:
    """Start a daemon, wait until it is healthy, stop it."""
    port = free_port()
    began_s = time.perf_counter()
    daemon = subprocess.Popen(
        [str(BIN / program), "daemon", "--port", str(port)],
        env=cluster.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not is_healthy(port):
            if daemon.poll() is not None or time.perf_counter() - began_s > GENEROUS_S:
                raise SystemExit(f"{program} does not come up; its log is in {cluster.home / 'logs'}")
            time.sleep(ASK_AGAIN_S)
        return time.perf_counter() - began_s
    finally:
        daemon.terminate()
        daemon.wait(GENEROUS_S)


class ApiClient:
    """Raw HTTP over one connection to the queen, kept open: nothing of a client library is measured."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=GENEROUS_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ask(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", until=b"}")

    def first_token_s(self) -> float:
        """Seconds from sending a task to the first token frame; the whole answer is read."""
        body = b'{"prompt": "hello", "stream": true}'
        head = b"POST /v2/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
        began_s = time.perf_counter()
        rest = self._ask(head % len(body) + body, until=b"event: token")
        took_s = time.perf_counter() - began_s
        self._read(rest, until=b"\r\n0\r\n\r\n")
        return took_s

    def close(self) -> None:
        self._socket.close()

    def _ask(self, request: bytes, until: bytes) -> bytes:
        self._socket.sendall(request)
        return self._read(b"", until)

    def _read(self, data: bytes, until: bytes) -> bytes:
        while until not in data:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise SystemExit(f"the queen hung up: {data[-500:]!r}")
            data += chunk
        return data


def measure_once(endless: str, put: Callable[[str, float], None]) -> None:
    """One round of everything."""
    with new_home() as cluster:
        put("help", timed(cluster, "--help").exit_s)
    for name, program in (("queen", "queen-rbee"), ("hive", "rbee-hive")):
        with new_home() as cluster:
            put(name, time_up(cluster, program))
    with new_home() as cluster:
        timing = timed(cluster, "infer", "hello")
        put("all_off", timing.first_byte_s)
        put("prompt_back", timing.exit_s - timing.last_byte_s)
    with new_home() as cluster:
        url = cluster.standing_queen()
        cluster.start("rbee-hive", "daemon", "--port", "0", "--queen", url, "--name", "localhost")
        with cluster.http() as queen:
            wait_until(lambda: queen.get("/health").json()["pools"] == 1, GENEROUS_S, "the queen knows the hive")
        put("warm_queen", timed(cluster, "infer", "hello").first_byte_s)
        put("warm_worker", timed(cluster, "infer", "hello").first_byte_s)
        client = ApiClient(url)
        put("api", sorted(client.first_token_s() for _ in range(5))[2])
        client.close()
        measure_throughput(cluster, endless, put)


def measure_throughput(cluster: Cluster, endless: str, put: Callable[[str, float], None]) -> None:
    """A long answer from a worker that has its model loaded."""
    long_answer = ("infer", "go on", "--model", endless, "--max-tokens")
    timed(cluster, *long_answer, "8")
    timing = timed(cluster, *long_answer, str(LONG_TOKENS))
    if (told := _COMPLETE.search(timing.stderr)) is None:
        raise SystemExit(f"the worker told no speed:\n{timing.stderr}")
    put("chain", (int(told[1]) - 1) / (timing.last_byte_s - timing.first_byte_s))
    put("worker", float(told[2]))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="scripts/bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured [5]")
    parser.add_argument("--json", action="store_true", help="one JSON object with every value")
    options = parser.parse_args()
    facts = machine()
    if not options.json:
        print(machine_line(facts) + "\n", flush=True)
    models = Path(tempfile.mkdtemp(prefix="rbee-bench-"))
    try:
        endless = f"file:{endless_model(models / 'endless.gguf')}"
        for _ in range(max(1, options.rounds)):
            measure_once(endless, lambda name, value: FIGURES[name].values.append(value))
    finally:
        shutil.rmtree(models, ignore_errors=True)
    print_figures(facts, list(FIGURES.values()), as_json=options.json)


if __name__ == "__main__":
    main()
