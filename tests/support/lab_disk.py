"""What the disk of a host holds when it is new: two accounts with keys, an `/etc` of its own, and nothing of ours.

Paths here lead to the disk from outside of the host, so it may be written whether the host is up or not.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab_namespaces import tool

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("rbee", "rbee-keeper", "queen-rbee", "rbee-hive")

_COPIED = (
    *("alternatives", "bash.bashrc", "csh.cshrc", "csh.login", "csh.logout", "fish", "ld.so.cache", "ld.so.conf"),
    *("ld.so.conf.d", "login.defs", "os-release", "profile", "protocols", "python3", "services", "shells", "ssl"),
)
_COMPILER = re.compile(
    r"(.*-)?(cc|c\+\+|gcc|g\+\+|cpp|clang|clang\+\+|tcc|c89|c99|cmake|ninja|make|gmake|nvcc)(-[\d.]+)?"
)
_CAN_RUN_RBEE = "import sys; sys.exit(sys.version_info < (3, 11))"


@dataclass(frozen=True)
class Account:
    """A login. `home` is a path on the host."""

    name: str
    uid: int
    home: str


ACCOUNTS = {"root": Account("root", 0, "/root"), "rita": Account("rita", 1000, "/home/rita")}

_PASSWD = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:102:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
rita:x:1000:1000:Rita:/home/rita:/bin/bash
"""
_GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\nrita:x:1000:\n"
_SHADOW = "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in _PASSWD.splitlines())


@dataclass(frozen=True)
class Owner:
    """Whose disk it is, and what of the machine is seen on it beside `/usr`.

    `python`: the prefix of an interpreter to be found as python3, None where it is to be the one below `/usr`.
    `has_checkout`: this checkout is seen with its environment, its programs are on PATH, and so are compilers.
    """

    name: str
    python: Path | None = None
    has_checkout: bool = False

    def shown(self) -> list[str]:
        """Each is seen where the machine has it: programs know by their path what belongs to them."""
        ours = {ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()} if self.has_checkout else set()
        paths = ours if self.python is None else ours | {self.python}
        return sorted(str(path) for path in paths if not _is_below(path, {Path("/usr"), *paths}))


@dataclass(frozen=True)
class Disk:
    """`path` is the host's `/` as seen from here; beside it lies what the host has over the machine's `/usr`."""

    path: Path

    @property
    def layer(self) -> Path:
        return self.path.with_name(f"{self.path.name}.usr")

    def make(self, owner: Owner, addresses: Mapping[str, str]) -> None:
        """Make it anew; whatever was on it is gone. `addresses` and the names of each are what `/etc/hosts` says."""
        for path in self._parts():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o755)
        for folder in ("dev", "etc/ssh", "home", "old", "opt", "proc", "run", "sys", "usr", "var/log"):
            (self.path / folder).mkdir(parents=True)
        for folder in ("tmp", "var/tmp"):
            (self.path / folder).mkdir()
            (self.path / folder).chmod(0o1777)
        self._write_etc(owner.name, addresses)
        for account in ACCOUNTS.values():
            self._make_home(account, owner.name)
        for program in PROGRAMS if owner.has_checkout else ():
            self._lay(f"local/bin/{program}", str(Path(sys.prefix, "bin", program)))
        if not owner.has_checkout:
            self._hide_compilers()
        if owner.python is not None:
            self._lay("local/bin/python3", f"{owner.python}/bin/python3")

    def append(self, path: str, text: str, account: Account) -> None:
        """To a file of that account's, made if it is not there."""
        file = self.path / path.lstrip("/")
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
        os.chown(file, account.uid, account.uid)

    def make_key(self, path: str, comment: str) -> None:
        """A new key pair at `path` of the host, in the place of what was there."""
        file = self.path / path.lstrip("/")
        for old in (file, file.with_name(f"{file.name}.pub")):
            old.unlink(missing_ok=True)
        tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file))

    def _parts(self) -> list[Path]:
        return [self.path, self.layer, self.path.with_name(f"{self.path.name}.work")]

    def _write_etc(self, name: str, addresses: Mapping[str, str]) -> None:
        etc = self.path / "etc"
        there = [str(path) for path in (Path("/etc", name) for name in _COPIED) if path.exists()]
        tool("cp", "--archive", *there, str(etc))
        hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {names}\n" for address, names in addresses.items())
        files = {"passwd": _PASSWD, "group": _GROUP, "hosts": hosts, "hostname": f"{name}\n", "resolv.conf": ""}
        for file, text in {**files, "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n"}.items():
            (etc / file).write_text(text)
        (etc / "shadow").write_text(_SHADOW)
        (etc / "shadow").chmod(0o640)
        self.make_key("etc/ssh/ssh_host_ed25519_key", name)

    def _make_home(self, account: Account, host: str) -> None:
        home = self.path / account.home.lstrip("/")
        (home / ".ssh").mkdir(mode=0o700, parents=True)
        home.chmod(0o711)  # others may pass through, as they must on blep when the interpreter lies in root's home
        self.make_key(f"{account.home}/.ssh/id_ed25519", f"{account.name}@{host}")
        for path in (home, *home.rglob("*")):
            os.chown(path, account.uid, account.uid)

    def _lay(self, path: str, target: str) -> None:
        """Over `/usr`, a link."""
        link = self.layer / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)

    def _hide_compilers(self) -> None:
        """Over `/usr`, a whiteout for each: where the layer has one, the program is not there."""
        for folder in ("bin", "local/bin"):
            for program in Path("/usr", folder).iterdir():
                if _COMPILER.fullmatch(program.name):
                    over = self.layer / folder / program.name
                    over.parent.mkdir(parents=True, exist_ok=True)
                    os.mknod(over, stat.S_IFCHR, os.makedev(0, 0))


def _is_below(path: Path, others: set[Path]) -> bool:
    return any(path.is_relative_to(other) for other in others if other != path)


def python_to_show() -> Path | None:
    """None where the python3 that a login finds below `/usr` can run rbee; else the prefix of this one."""
    command = ["env", "-i", "PATH=/usr/local/bin:/usr/bin", "python3", "-c", _CAN_RUN_RBEE]
    can = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return None if can else Path(sys.base_prefix).resolve()
