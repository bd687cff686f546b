"""A node that is this machine under another home: a real sshd lets the queen in, and this very rbee is there already.

What lies between the queen and its hive is all real; only the installation is this environment under the names of one.
"""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.support.cluster import Cluster
from tests.support.processes import processes_with_env, wait_until
from tests.support.sshd import Sshd, sshd

from queen_rbee.domain.nodes.probe_report import Installed
from queen_rbee.nodes.here import own_rbee

_SOON_S = 30.0


@dataclass(frozen=True)
class NearNode:
    """`order`: what `POST /v2/nodes` takes to have it in the catalog as `near`."""

    server: Sshd
    home: Path
    order: dict[str, Any]

    def processes(self, program: str) -> list[psutil.Process]:
        """Its processes of that program."""
        found = processes_with_env("RBEE_HOME", str(self.home))
        return [process for process in found if program in " ".join(process.cmdline())]

    def only(self, program: str) -> psutil.Process:
        """The one process of that program, waited for."""
        wait_until(lambda: len(self.processes(program)) == 1, _SOON_S, f"one {program} runs there")
        return self.processes(program)[0]

    def all_gone(self, within_s: float) -> None:
        wait_until(lambda: not processes_with_env("RBEE_HOME", str(self.home)), within_s, "nothing runs there")


@contextmanager
def near_node(directory: Path, cluster: Cluster, **clocks: float) -> Generator[NearNode]:
    """Up, with rbee on it and nothing running. `cluster`: whose queen may log in; it becomes a user of its own."""
    directory.mkdir()
    with sshd(directory / "sshd") as server:
        _let_in(cluster, server, directory / "user")
        home = directory / "near"
        _put_rbee(home, cluster.token)
        _write_clocks(home, clocks)
        server.start()
        order = {
            "name": "near", "host": "127.0.0.1", "port": server.port, "user": "root", "key": str(server.key),
            "home": str(home), "fingerprint": server.fingerprint,
        }  # fmt: skip
        try:
            yield NearNode(server, home, order)
        finally:
            for process in processes_with_env("RBEE_HOME", str(home)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def _let_in(cluster: Cluster, server: Sshd, user: Path) -> None:
    user.mkdir(mode=0o700)
    (user / ".ssh").symlink_to(server.ssh)
    cluster.env["HOME"] = str(user)
    cluster.env.pop("SSH_AUTH_SOCK", None)


def _put_rbee(home: Path, token: str) -> None:
    wheel = own_rbee().wheel
    note = Installed(
        id="here-0", version=wheel.name.split("-")[1], wheel_sha256=wheel.sha256, python=sys.executable,
        installed_at_unix=int(time.time()),
    )  # fmt: skip
    version = home / "versions" / note.id
    (version / "bin").mkdir(mode=0o700, parents=True)
    here = Path(sys.executable).parent
    (version / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (version / "bin" / "python").chmod(0o700)
    for program in ("rbee-hive", "llm-worker-rbee"):
        (version / "bin" / program).symlink_to(here / program)
    (version / "installed.json").write_text(note.model_dump_json())
    (home / "current").symlink_to(version.relative_to(home))
    (home / "token").write_text(f"{token}\n")
    (home / "token").chmod(0o600)


def _write_clocks(home: Path, clocks: dict[str, float]) -> None:
    lines = [f"{name} = {value}\n" for name, value in clocks.items()]
    (home / "config.toml").write_text("[clocks]\n" + "".join(lines))
