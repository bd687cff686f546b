"""How programs find each other: `run/<hostname>/<program>.json`, written after bind, removed on exit.

A file is believed only while the very process that wrote it runs, known by pid and start time: a killed daemon leaves
its file behind, and pids are reused. Whoever is about to talk to that daemon also compares its `instance`.
"""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_PRIVATE_FILE = 0o600


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon that says it runs here."""

    url: str
    pid: int
    create_time: float
    instance: str

    @property
    def alive(self) -> bool:
        """Whether the very process that wrote this still runs."""
        from rbee_shared.process_identity import is_running  # noqa: PLC0415 - psutil: 30 ms an awake queen's keeper saves

        return is_running(self.pid, self.create_time)


def read_run_file(path: Path) -> RunningDaemon | None:
    """The daemon that `path` names if it is still alive, else None."""
    daemon = claimed_daemon(path)
    return daemon if daemon is not None and daemon.alive else None


def claimed_daemon(path: Path) -> RunningDaemon | None:
    """The daemon that `path` names, dead or alive: for who is about to ask it for its `instance` anyway."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return RunningDaemon(str(facts["url"]), int(facts["pid"]), float(facts["create_time"]), str(facts["instance"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


@contextmanager
def run_file(path: Path, *, url: str, instance: str) -> Generator[None]:
    """Publish this process as the one that serves `url`; withdrawn on leaving."""
    from rbee_shared.process_identity import this_process  # noqa: PLC0415 - as above

    pid, create_time = this_process()
    daemon = RunningDaemon(url, pid, create_time, instance)
    draft = path.with_name(f"{path.name}.{pid}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(daemon), file)
    draft.replace(path)
    try:
        yield
    finally:
        if (current := read_run_file(path)) is None or current.instance == instance:
            path.unlink(missing_ok=True)
