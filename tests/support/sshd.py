"""A real OpenSSH server on a port of this machine, with a home, keys and options of the test's own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""
WHY_NOT = "needs OpenSSH's sshd (Debian: openssh-server), and root to run it" if not _SSHD or os.getuid() else ""
_UP_S = 20.0


@dataclass
class Sshd:
    """Made by `sshd`. `ssh`: the client's `~/.ssh`; `key`: a key that is let in."""

    directory: Path
    port: int
    options: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    key_type: str = "ed25519"
    generation: int = 0
    ssh: Path = field(init=False)

    def __post_init__(self) -> None:
        self.ssh = self.directory / "client"
        self.ssh.mkdir(mode=0o700)
        make_key(self.ssh / "id_ed25519", "me@blep")
        self.authorise(self.ssh / "id_ed25519.pub")
        self.new_host_key()

    @property
    def key(self) -> Path:
        return self.ssh / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.directory / f"host_key_{self.generation}"

    @property
    def fingerprint(self) -> str:
        """Of its host key, as OpenSSH says it."""
        said = subprocess.run(["ssh-keygen", "-lf", self.host_key], capture_output=True, text=True, check=True)
        return said.stdout.split()[1]

    def authorise(self, *public_keys: Path) -> None:
        """Let these keys in, and no others."""
        authorised = self.directory / "authorized_keys"
        authorised.write_text("".join(key.read_text() for key in public_keys))
        authorised.chmod(0o600)

    def new_host_key(self, key_type: str = "ed25519") -> None:
        """Another host key, from the next start on."""
        self.generation += 1
        make_key(self.host_key, "host", key_type)

    def know(self) -> None:
        """Put its host key into the client's `known_hosts`."""
        algorithm, data = self.host_key.with_suffix(".pub").read_text().split()[:2]
        (self.ssh / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {algorithm} {data}\n")

    def start(self, *options: str) -> None:
        """Start it with these lines of sshd_config."""
        config = self.directory / "sshd_config"
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.host_key}", "PidFile none", "UsePAM no",
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}", "StrictModes no", "PermitRootLogin yes",
            *options,
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [_SSHD, "-D", "-e", "-f", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._until_up()

    def _until_up(self) -> None:
        deadline = time.monotonic() + _UP_S
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError(f"sshd did not come up: {(self.directory / 'log').read_text()}")

    def cut(self) -> None:
        """End every connection, as a network that resets them does; what runs in them lives on. The server goes too."""
        assert self.process is not None
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """No more server, and no connection."""
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        for pid in [*_children(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.process.wait(10)
        self.process = None


def make_key(path: Path, comment: str, key_type: str = "ed25519", passphrase: str = "") -> None:
    """A key pair as OpenSSH makes it."""
    subprocess.run(["ssh-keygen", "-q", "-t", key_type, "-N", passphrase, "-C", comment, "-f", path], check=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def sshd(directory: Path) -> Generator[Sshd]:
    """A server that is not started yet; gone after the block."""
    directory.mkdir()
    server = Sshd(directory, free_port())
    try:
        yield server
    finally:
        server.stop()


def _children(pid: int) -> list[int]:
    """Its descendants that are sshd's own: a connection is two processes, one of them in the session of the user."""
    import psutil  # noqa: PLC0415 - only where one is ended

    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children(recursive=True) if child.name().startswith("sshd")]
    return []
