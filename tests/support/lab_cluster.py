"""rbee on the hosts of the lab: put there once and copied from then on, driven as a user drives it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from tests.support.lab import Lab
from tests.support.lab_host import Host
from tests.support.lab_machine import Done, OnHost
from tests.support.models import endless_model

_SLOW_LINE = Path(__file__).parent / "programs" / "slow_line.py"
TOKEN = "the-token-of-this-lab-0123456789abcdef\n"
PROGRAMS = ("queen-rbee", "rbee-hive", "llm-worker-rbee")
SOON_S = 120.0
ENDLESS = "/root/.rbee/models/endless.gguf"
METAL = """[hive]
devices = [{ backend = "metal", index = 0, name = "M3 Max", vram_bytes = 36_000_000_000, build = "cpu" }]
"""
CUDA_TWICE = """[hive]
devices = [
  { backend = "cuda", index = 0, name = "RTX 3060", vram_bytes = 12_000_000_000, build = "cpu" },
  { backend = "cuda", index = 1, name = "RTX 3090", vram_bytes = 24_000_000_000, build = "cpu" },
  { backend = "cpu", index = 0, name = "EPYC" },
]
"""
_ROWS = """
import json, sqlite3, sys
print(json.dumps(sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2]).fetchall()))
"""
# what an installation is made of; the rest of a home is its history
INSTALLED = ("install.lock", "current", "versions", "wheels", "workers", "workers.db")


def rows(host: Host, query: str, database: str = "/root/.rbee/models.db") -> list[list[Any]]:
    """What a statement finds or returns in a database of that host. Run there: SQLite resolves paths from outside."""
    found: list[list[Any]] = json.loads(host.run(["python3", "-c", _ROWS, database, query]).stdout)
    return found


def keeper(host: Host, *arguments: str, check: bool = True, within_s: float = SOON_S, **options: Any) -> Done:
    """Run the keeper there as a user does."""
    return host.run(["rbee-keeper", *arguments], check=check, within_s=within_s, **options)


def watched(host: Host, far: Host, *arguments: str, within_s: float = SOON_S) -> OnHost:
    """Run the keeper to its end, and see a hive and a worker alive on `far` meanwhile: so that a leak would be seen.

    Raises:
        AssertionError: it failed, or nothing of ours was seen there.
    """
    running = host.popen(["rbee-keeper", *arguments])
    try:
        far.comes_alive(within_s, "rbee-hive", "llm-worker-rbee")
    except AssertionError as error:
        raise AssertionError(f"{error}: {running.stderr}") from None
    assert running.wait(within_s) == 0, running.stderr
    return running


def put_endless(host: Host) -> None:
    """A model whose answers end when they are told to, at `ENDLESS` of that host."""
    with TemporaryDirectory() as scratch:
        content = endless_model(Path(scratch) / "endless.gguf", n_ctx_train=40_000).read_bytes()
    target = host.path(ENDLESS)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.write_bytes(content)


def long_answer(tokens: int = 30_000) -> list[str]:
    """A command whose answer from mac takes a while, where `put_endless` has been."""
    options = ["--temperature", "0", "--max-tokens", str(tokens), "--prompt", "once upon a time"]
    return ["rbee-keeper", "infer", "--node", "mac", "--model", f"file:{ENDLESS}", *options]


@dataclass(frozen=True)
class Gone:
    """Waits until programs are gone from a host, all of ours where none is named. `report` is told when each was."""

    report: Callable[[str], None]

    def __call__(self, host: Host, within_s: float, *programs: str) -> None:
        after_s = host.gone_after(within_s, *(programs or PROGRAMS))
        times = ", ".join(f"{program} {seconds:.2f} s" for program, seconds in after_s.items() if seconds)
        self.report(f"{host.name}: {times or 'gone already'}")


def save_installation(host: Host, archive: Path, names: Sequence[str] = INSTALLED) -> None:
    """Keep what was installed on that host (`names`: of its home) for the hosts of other tests."""
    with archive.open("wb") as file:
        command = ["tar", "-C", str(host.path("/root/.rbee")), "-cf", "-", *names]
        subprocess.run(command, stdout=file, check=True)


def put_installation(host: Host, archive: Path) -> None:
    """Have rbee on that host as its queen would have installed it."""
    home = host.path("/root/.rbee")
    home.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["tar", "-C", str(home), "-xf", str(archive)], check=True)
    host.write("/root/.rbee/token", TOKEN, mode=0o600)


def name_hosts(lab: Lab) -> None:
    """Let blep log in everywhere as root, and name the hosts in its `~/.ssh/config`: that makes them nodes."""
    lab.blep.path("/root/.rbee").mkdir(mode=0o700, exist_ok=True)
    lab.blep.write("/root/.rbee/token", TOKEN, mode=0o600)
    lab.introduce(lab.blep, lab.mac, lab.workstation)
    lab.blep.write("/root/.ssh/config", "Host mac workstation\n")


def install(lab: Lab, host: Host) -> None:
    """From blep, with all libraries along: no host of the lab reaches an index."""
    keeper(lab.blep, "node", "wheelhouse", host.name, within_s=300)
    keeper(lab.blep, "infer", "--node", host.name, "--max-tokens", "1", "hello", within_s=600)


@contextmanager
def slow_line(lab: Lab, host: Host, delay_ms: int) -> Iterator[None]:
    """Have blep reach that host, under its name, over a line on which every byte takes so long, in each direction."""
    port = 2200
    argv = [sys.executable, str(_SLOW_LINE), str(port), host.address, "22", str(delay_ms)]
    line = lab.blep.popen(argv, stdin=subprocess.DEVNULL)
    line.wait_for("slow")
    before = lab.blep.path("/root/.ssh/config").read_text()
    entry = f"Host {host.name}\nHostName 127.0.0.1\nPort {port}\nHostKeyAlias {host.name}\n"
    lab.blep.write("/root/.ssh/config", entry + before)
    try:
        yield
    finally:
        lab.blep.write("/root/.ssh/config", before)
        line.send_signal(15)
        line.wait()


@contextmanager
def standing_queen(lab: Lab, *arguments: str) -> Iterator[OnHost]:
    """A queen on blep as an operator starts her; ended after the block, and all of hers gone with her."""
    queen = lab.blep.popen(["queen-rbee", "daemon", *arguments])
    try:
        queen.wait_for("queen is awake")
        yield queen
    finally:
        with suppress(psutil.NoSuchProcess):  # she may go by herself between the question and the signal
            if queen.process.poll() is None:
                queen.send_signal(15)
        queen.wait()
