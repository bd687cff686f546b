"""A cluster whose models are called as in the seed documents, and curl that finds it at the seeds' addresses."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.support.cluster import Cluster, Running, wait_until
from tests.support.worker import STORYTELLER

MODELS = ("qwen-0.5b", "llama3-8b", "mistral", "tinyllama")
_STATUS = re.compile(r"\n(\d{3})$")


@dataclass
class Answer:
    """What curl printed, and the HTTP status."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class SeedLab:
    """A standing queen and an operator's hive, which has every model of the seeds' examples."""

    cluster: Cluster
    hive_url: str

    def queen(self, *, token: bool = True) -> httpx2.Client:
        return self.cluster.http(token=token)

    def hive(self, key: str | None = None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {key or self.cluster.token}"}
        return httpx2.Client(base_url=self.hive_url, headers=headers, timeout=60, trust_env=False)

    def ready_worker(self, model: str = "tinyllama") -> dict[str, Any]:
        """The hive's record of a worker that serves."""
        with self.hive() as http:
            spawned = http.post("/v1/workers/spawn?wait=ready", json={"model": model, "request_id": model})
            assert spawned.status_code == 201, spawned.text
            workers = http.get("/v1/workers/list").json()["workers"]
        return next(dict(worker) for worker in workers if worker["id"] == spawned.json()["worker_id"])


@contextmanager
def seed_lab(home: Path) -> Generator[SeedLab]:
    """Start it; in the end all of it is gone."""
    cluster = Cluster(home, RBEE_HIVE_WORKER_PORT="0")
    try:
        queen_url = cluster.standing_queen()
        cluster.start("rbee-hive", "daemon", "--port", "0", "--queen", queen_url)
        lab = SeedLab(cluster, str(cluster.run_file("rbee-hive")["url"]))
        with lab.hive() as http:
            wait_until(lambda: http.get("/health").json()["adopted"], 20, "the queen has answered the hive")
            for model in MODELS:
                file = shutil.copy(STORYTELLER, home / "models" / f"{model}.gguf")
                assert http.post("/v1/models/import", json={"path": str(file)}).json()["id"] == model
        yield lab
        stop = cluster.keeper("queen", "stop")
        assert stop.wait() == 0, stop.stderr
        cluster.leaves_nothing()
    finally:
        cluster.close()


def curl(line: str, config: Path, hosts: Mapping[str, str], *more: str) -> Answer:
    """Run a line of a seed in a shell as it stands. `hosts`: where its `host:port` are found, as `host:port`."""
    config.mkdir(exist_ok=True)
    options = ["silent", "show-error", 'noproxy = "*"', r'write-out = "\n%{http_code}"', *more]
    options += [f'connect-to = "{name}:{address}"' for name, address in hosts.items()]
    (config / ".curlrc").write_text("\n".join(options) + "\n")
    environment = {**os.environ, "CURL_HOME": str(config)}
    run = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr.decode()
    printed = run.stdout.decode()
    status = _STATUS.search(printed)
    assert status is not None, printed
    return Answer(int(status[1]), printed[: status.start()])


def start_line(cluster: Cluster, line: str) -> Running:
    """Start a program by its command line as a document has it."""
    program, *arguments = shlex.split(line.replace("\\\n", ""))
    return cluster.start(program, *arguments)


def free_port() -> int:
    """A port that nobody holds, for a command line that wants a number."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
