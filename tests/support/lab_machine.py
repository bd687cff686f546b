"""A machine of the lab: power, programs run on it, and all that can be asked about what it has or leaves behind.

Process ids are those seen from here, so psutil works on them: `mac.processes("rbee-hive")[0].suspend()`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from tests.support.cluster import GENEROUS_S, Running, wait_until
from tests.support.lab_disk import ACCOUNTS, Disk, Owner
from tests.support.lab_namespaces import Namespaces, first_child
from tests.support.lab_network import Network
from typing_extensions import override

_BOOT, _CARRIER = (Path(__file__).parent / "programs" / f"lab_{name}.py" for name in ("boot", "carrier"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOMAIN = "home.arpa"
_WRITTEN_TO = ("etc", "home", "opt", "root", "run", "tmp", "var", "dev/shm")


@dataclass(frozen=True)
class Done:
    """What a program that ended left."""

    status: int
    stdout: str
    stderr: str


@dataclass
class OnHost(Running):
    """A program that runs on a host. `process` is what carries it in, `pid` the program itself."""

    program: psutil.Process | None = None

    @property
    @override
    def pid(self) -> int:
        assert self.program is not None, f"it has ended: {self.stderr}"
        return self.program.pid

    def send_signal(self, number: int) -> None:
        """To the program, and to nobody else."""
        assert self.program is not None, f"it has ended: {self.stderr}"
        self.program.send_signal(number)


@dataclass(frozen=True)
class Snapshot:
    """What a host has at one moment; two are equal when nothing stayed behind in between."""

    processes: tuple[str, ...]
    ports: frozenset[int]
    files: frozenset[str]


@dataclass
class Machine:
    """Processes, files, name and network of its own. It is off until `power_on`.

    `env` is in the environment of all that is run here, and of every login over SSH.
    """

    owner: Owner
    address: str
    disk: Disk
    lab: Namespaces
    network: Network
    env: dict[str, str] = field(default_factory=dict)
    _carrier: "subprocess.Popen[bytes] | None" = None
    _spaces: Namespaces | None = None
    _started: list[OnHost] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.owner.name

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{DOMAIN}"

    # power

    def power_on(self) -> None:
        """Boot: process 1, then the network."""
        inside = self.lab.argv("mount", "pid")
        unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        disk = "/" + str(self.disk.path.relative_to(self.lab.root))
        boot = [sys.executable, "-IS", str(_BOOT), self.name, disk, *self.owner.shown()]
        carrier = subprocess.Popen(
            [*inside, *unshare, *boot], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert carrier.stdout is not None
        with carrier.stdout as output:
            told = _read_until(b"up\n", output)
        if not told.endswith(b"up\n"):
            raise RuntimeError(f"{self.name} does not boot: {told.decode()}, exit status {carrier.wait(GENEROUS_S)}")
        (parent,) = psutil.Process(carrier.pid).children()
        (first,) = parent.children()
        self._carrier, self._spaces = carrier, Namespaces(first.pid)
        self.network.plug_in(self.name, self.address, self._spaces)

    def power_off(self) -> None:
        """As if the current failed: the others hear nothing more of it, not even that its connections ended."""
        if self._spaces is None or self._carrier is None:
            return
        self.network.unplug(self.name)
        os.kill(self._spaces.pid, signal.SIGKILL)  # the kernel ends the others before this one is gone
        self._carrier.wait(GENEROUS_S)
        self._carrier = self._spaces = None
        for program in self._started:
            program.wait()
            if program.process.stdin is not None:
                with suppress(OSError):  # what it had not read is nobody's now
                    program.process.stdin.close()
        self._started.clear()

    def reboot(self) -> None:
        """Lose power and come back with the same disk; `/tmp` and `/run` are empty then."""
        self.power_off()
        self.power_on()

    # programs

    def popen(self, argv: Sequence[str], *, user: str = "root", **options: Any) -> OnHost:
        """Start a program in a session of its own, in the user's home, as after a login; its output is collected.

        `env` is added to what a login sets, `cwd` replaces the home, `stdin` is empty unless given.
        """
        defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = self._argv(argv, user, options.pop("env", {}), options.pop("cwd", None))
        process = subprocess.Popen(command, start_new_session=True, **{**defaults, **options})
        program = OnHost(process, program=first_child(process))
        self._started.append(program)
        return program

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        text: str = "",
        check: bool = True,
        within_s: float = GENEROUS_S,
    ) -> Done:
        """Run a program to its end, `text` on its stdin.

        Raises:
            AssertionError: it failed and `check` is on, or it did not end in time; the text is what it said.
        """
        process = subprocess.Popen(
            self._argv(argv, user, env or {}, None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        late = False
        try:
            out, err = process.communicate(text.encode(), within_s)
        except subprocess.TimeoutExpired:
            late = True
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            out, err = process.communicate(timeout=GENEROUS_S)
        done = Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        assert not late, f"{argv} on {self.name} did not end within {within_s:g} s: {done}"
        assert done.status == 0 or not check, f"{argv} on {self.name}: {done}"
        return done

    def _argv(self, argv: Sequence[str], user: str, env: Mapping[str, str], cwd: str | None) -> list[str]:
        account = ACCOUNTS[user]
        names = {"HOME": account.home, "USER": user, "LOGNAME": user, "SHELL": "/bin/bash", "LANG": "C.UTF-8"}
        variables = {**names, "PATH": _PATH, **self.env, **env}
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        assignments = [f"{name}={value}" for name, value in variables.items()]
        login = ["/usr/bin/env", f"--chdir={cwd or account.home}", "--ignore-environment", *assignments, *become]
        return [sys.executable, "-IS", str(_CARRIER), str(self.spaces.pid), *login, *argv]

    # what is there

    @property
    def is_on(self) -> bool:
        return self._spaces is not None

    @property
    def spaces(self) -> Namespaces:
        assert self._spaces is not None, f"{self.name} is off"
        return self._spaces

    def path(self, path: str) -> Path:
        """Where a test finds a file of this host that is up. Of an absolute link read the text, do not follow it."""
        return self.spaces.root / path.lstrip("/")

    def write(self, path: str, text: str, *, user: str = "root", mode: int = 0o644) -> None:
        """Make that file of that user's, with its folders."""
        script = 'mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "-", path, f"{mode:o}"], user=user, text=text)

    def hide(self, *programs: str) -> None:
        """Take programs off this host: `hide("python3*")`. They are back on a new disk."""
        script = "for each; do rm -f /usr/bin/$each /usr/local/bin/$each; done"
        self.run(["sh", "-c", script, "-", *programs])

    def processes(self, part: str = "") -> list[psutil.Process]:
        """Every living process whose command line has `part` in it, sshd's too; none while the host is off."""
        if self._spaces is None:
            return []
        return [process for process in self._spaces.processes() if part in _command_line(process)]

    def seen_alive(self, *programs: str) -> None:
        """The leak check sees these now: it would see them if they stayed."""
        for program in programs:
            assert self.processes(program), f"{program} is not seen alive on {self.name}"

    def comes_alive(self, within_s: float, *programs: str) -> None:
        """Wait until the leak check sees all of these at once."""
        wait_until(lambda: all(map(self.processes, programs)), within_s, f"seen alive on {self.name}: {programs}")

    def all_gone(self, within_s: float, *programs: str) -> float:
        """Wait until no process of these programs is left; the seconds that took."""
        return max(self.gone_after(within_s, *programs).values())

    def gone_after(self, within_s: float, *programs: str) -> dict[str, float]:
        """Wait until no process of these programs is left; for each, the seconds until the last of it was gone."""
        began_s = time.monotonic()
        alive_s = dict.fromkeys(programs, began_s)

        def left() -> list[str]:
            lines = {program: [_command_line(process) for process in self.processes(program)] for program in programs}
            alive_s.update({program: time.monotonic() for program, found in lines.items() if found})
            return [line for found in lines.values() for line in found]

        try:
            wait_until(lambda: not left(), within_s, "all gone")
        except AssertionError:
            raise AssertionError(f"not gone from {self.name} within {within_s:g} s: {left()}") from None
        return {program: seen_s - began_s for program, seen_s in alive_s.items()}

    def ports(self) -> dict[int, set[str]]:
        """The TCP ports that somebody here listens on, and at which addresses: `{22: {"0.0.0.0"}}`."""
        found: dict[int, set[str]] = {}
        for line in self.spaces.tool("ss", "--no-header", "--listening", "--tcp", "--numeric").splitlines():
            address, _, port = line.split()[3].rpartition(":")
            found.setdefault(int(port), set()).add(address.strip("[]"))
        return found

    def files(self, *folders: str, without: Sequence[str] = ()) -> set[str]:
        """Every file, link and folder below `folders` (default: wherever one can write), but none below `without`.

        What is mounted below them is left out, as `blep`'s interpreter is.
        """
        root = self.spaces.root
        skipped = {str(root / path.lstrip("/")) for path in without}
        found: set[str] = set()
        for folder in folders or _WRITTEN_TO:
            for above, inner, names in os.walk(root / folder.lstrip("/")):
                paths = {name: f"{above}/{name}" for name in inner}
                inner[:] = [name for name, path in paths.items() if path not in skipped and not _is_mounted(Path(path))]
                found |= {f"{above}/{name}".removeprefix(str(root)) for name in (*inner, *names)}
        return found

    def snapshot(self, *, without: Sequence[str] = ("/root/.rbee", "/home/rita/.rbee")) -> Snapshot:
        """For a comparison with a later one; what sshd logs and who is logged in is left out."""
        without = [*without, "/var/log", "/run"]
        lines = [line for line in map(_command_line, self.processes()) if not line.startswith("sshd")]
        return Snapshot(tuple(sorted(lines)), frozenset(self.ports()), frozenset(self.files(without=without)))


def _is_mounted(path: Path) -> bool:
    """Unlike `Path.is_mount` it does not resolve links, of which `/proc/PID/root` is one that leads astray."""
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except FileNotFoundError:
        return False


def _read_until(line: bytes, stream: IO[bytes]) -> bytes:
    read = b""
    while not read.endswith(line) and (more := stream.readline()):
        read += more
    return read


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
