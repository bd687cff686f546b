"""Where rbee keeps its files: one directory, private to its user."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PRIVATE_DIR = 0o700


@dataclass(frozen=True)
class Home:
    """`~/.rbee`, or `$RBEE_HOME`. `run/<hostname>/` is per machine: a home directory may be shared over a network."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """The home that the environment names."""
        named = os.environ.get("RBEE_HOME")
        return cls(Path(named).expanduser().absolute() if named else Path.home() / ".rbee")

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def queen_db(self) -> Path:
        return self.root / "queen.db"

    @property
    def models_db(self) -> Path:
        return self.root / "models.db"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def workers_db(self) -> Path:
        return self.root / "workers.db"

    @property
    def workers(self) -> Path:
        """One directory for each worker build: `<kind>-<version>`."""
        return self.root / "workers"

    @property
    def wheels(self) -> Path:
        """Finished engines that a queen has sent along; `wheels_dir` names another directory."""
        return self.root / "wheels"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run" / socket.gethostname()

    def run_file(self, program: str) -> Path:
        """Says where the running daemon is: `{url, pid, create_time, instance}`."""
        return self.run / f"{program}.json"

    def lock_file(self, program: str) -> Path:
        return self.run / f"{program}.lock"

    def ensure(self) -> "Home":
        """Make the directories, readable by their owner only."""
        for directory in (self.root, self.models, self.logs, self.run.parent, self.run):
            directory.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        return self
