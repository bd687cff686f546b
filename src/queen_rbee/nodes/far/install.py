"""Puts rbee on the node it runs on: `HOME/versions/<id>`, complete and tried before `HOME/current` points to it.

Killed at any moment it leaves the version before in its place; what is half made has no `installed.json`, and the next
installation removes it. A version that a process runs from is never removed.
"""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from queen_rbee.nodes.far.ground import (
    LOCK,
    HungUp,
    Lifeline,
    Refusal,
    Voice,
    is_held,
    leave,
    make_directory,
    only_one,
    processes_of,
    refusal_of,
)

NOTE = "installed.json"
_UPLOAD = "upload"
_CHUNK_BYTES = 256 * 1024
_PRIVATE_FILE = 0o600
_KEPT_LINES = 40
_SIGN_S = 1.0
_VERSION_S = 60.0
_TAR_BLOCK_BYTES = 10240

# Runs a module or a script and ends with who started it: a killed installation leaves no pip behind.
_GUARD = """
import os, runpy, signal, sys, threading

def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
wheel, program, sys.argv = sys.argv[1], sys.argv[2], sys.argv[2:]
if wheel:
    sys.path.insert(0, wheel)
if os.sep in program:
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""

_PIP_INSTALL = (
    "pip", "install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-user",
    "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--timeout", "15", "--retries", "2",
)  # fmt: skip
_OFFLINE = ("--isolated", "--no-index")
# would lead pip or Python elsewhere than into the new environment
_MISLEADING = re.compile(
    r"PYTHON|RBEE_|PIP_(?:USER|TARGET|PREFIX|ROOT|NO_DEPS|NO_BINARY|ONLY_BINARY|REQUIRE_HASHES|LOG|CACHE_DIR)"
)


@dataclass(frozen=True)
class Order:
    """What the queen wants. `files`: what she sends, name -> [bytes, sha256]; the other names are among them.

    `offline`: the libraries are among them too, and no index is asked. `token`: of her cluster.
    """

    nonce: str
    home: str
    version: str
    files: dict[str, list[Any]]
    wheel: str
    pip: str | None
    lock: str
    offline: bool
    token: str | None
    wait_s: float
    silence_s: float


def main(order_json: str) -> None:
    """Do it, and say how it ended. Never returns."""
    order = Order(**json.loads(order_json))
    voice = Voice(order.nonce)
    os.umask(0o077)
    lifeline = Lifeline(order.silence_s)
    try:
        voice.say(done=installed(order, voice, lifeline))
    except Refusal as refusal:
        voice.fail(refusal)
    except HungUp:
        voice.fail(Refusal("interrupted", "the installation was broken off"))
    except (OSError, tarfile.TarError, ValueError) as error:
        voice.fail(refusal_of(error) if isinstance(error, OSError) else Refusal("system", str(error)))
    else:
        leave(0)
    leave(1)


def installed(order: Order, voice: Voice, lifeline: Lifeline) -> dict[str, Any]:
    """The note of what is installed now."""
    home = Path(order.home)
    make_directory(home)
    with only_one(home, voice, order.wait_s) as lock:
        require_own_cluster(home / "token", order.token)
        remove_half_made(home)
        work = Installation(home, order, voice, lock)
        try:
            work.receive(lifeline)
            lifeline.listen()
            note = work.make()
            lifeline.close()
            work.finish(note)
        except BaseException:
            lifeline.close()
            shutil.rmtree(work.directory, ignore_errors=True)
            leave_as_it_was(home)
            raise
        remove_old(home)
    return note


class Installation:
    """One version in the making. `lock` is held as long as anything that was started for it runs."""

    def __init__(self, home: Path, order: Order, voice: Voice, lock: int) -> None:
        self._home = home
        self._order = order
        self._voice = voice
        self._lock = lock
        digest = order.files[order.wheel][1]
        self._id = f"{order.version}-{digest[:12]}-{os.urandom(3).hex()}"
        self.directory = home / "versions" / self._id
        self._upload = self.directory / _UPLOAD
        self._python = str(self.directory / "bin" / "python")

    def receive(self, lifeline: Lifeline) -> None:
        """Every file that was announced, whole and unharmed."""
        make_directory(self._upload / "tmp")
        lacking = dict(self._order.files)
        stream = cast("IO[bytes]", _Heard(lifeline))
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_TAR_BLOCK_BYTES) as archive:
            for member in archive:
                content = archive.extractfile(member)
                expected = lacking.pop(member.name, None)
                if content is None or expected is None:
                    raise Refusal("system", f"{member.name!r} came, and was not announced")
                self._keep(member.name, content, expected)
        if lacking:
            raise Refusal("interrupted", f"the upload broke off: {len(lacking)} files are missing")

    def make(self) -> dict[str, Any]:
        """The environment with everything in it, tried."""
        order, voice = self._order, self._voice
        voice.tell(f"making an environment with Python {sys.version.split()[0]}")
        venv.EnvBuilder(symlinks=True).create(self.directory)
        self._install_pip()
        self._install_libraries()
        voice.tell(f"installing rbee {order.version}")
        self._pip("installing rbee", *_OFFLINE, "-r", self._only(order.wheel))
        self._try_out()
        return {
            "id": self._id,
            "version": order.version,
            "wheel_sha256": order.files[order.wheel][1],
            "python": sys.version.split()[0],
            "installed_at_unix": int(time.time()),
        }

    def finish(self, note: dict[str, Any]) -> None:
        """The moment from which it is the current one."""
        write_token(self._home / "token", self._order.token)
        self._place_engines()
        shutil.rmtree(self._upload)
        _write(self.directory / NOTE, json.dumps(note))
        target = os.path.join("versions", self._id)  # noqa: PTH118 - a relative text: the home may be moved
        was = _target(self._home / "current")
        if was is not None:
            _point(self._home / "previous", was)
        _point(self._home / "current", target)

    def _keep(self, name: str, content: IO[bytes], expected: list[Any]) -> None:
        path = self._upload / name
        make_directory(path.parent)
        digest = hashlib.sha256()
        with path.open("xb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            size = file.tell()
        if [size, digest.hexdigest()] != expected:
            raise Refusal("system", f"{name} arrived otherwise than it was sent")

    def _install_pip(self) -> None:
        """The newer of the queen's and of this Python's own, which a new Python may need; Debian's has none."""
        sent = self._order.pip
        if sent is not None and _numbers(Path(sent).name.split("-")[1]) >= _bundled_pip():
            wheel = str(self._upload / sent)
            self._run("installing pip", [wheel, *_PIP_INSTALL, *_OFFLINE, "-r", self._only(sent)])
        elif _bundled_pip():
            self._run("installing pip", ["", "ensurepip"])
        else:
            raise Refusal("step", "there is no pip: neither has this Python one, nor the queen")

    def _install_libraries(self) -> None:
        order = self._order
        lock = self._upload / order.lock
        total = lock.read_text().count("==")
        self._voice.tell(f"{'unpacking' if order.offline else 'fetching'} {total} libraries")
        source = [*_OFFLINE, "--find-links", str(self._upload / "wheelhouse")] if order.offline else []
        self._pip("installing the libraries", *source, "-r", str(lock), total=total)

    def _try_out(self) -> None:
        self._voice.tell("trying it out")
        lines = self._run("trying out rbee-hive", ["", str(self.directory / "bin" / "rbee-hive"), "--version"])
        if not any(line.split()[-1:] == [self._order.version] for line in lines):
            raise Refusal("step", f"rbee-hive does not say that it is {self._order.version}", tuple(lines))

    def _only(self, name: str) -> str:
        """A list of that one file with its hash: nothing is installed that was not checked."""
        wheel = self._upload / name
        listed = self._upload / f"{wheel.name}.lock"
        listed.write_text(f"{wheel.as_uri()} --hash=sha256:{self._order.files[name][1]}\n")
        return str(listed)

    def _pip(self, title: str, *arguments: str, total: int = 0) -> None:
        self._run(title, ["", *_PIP_INSTALL, *arguments], total)

    def _run(self, title: str, arguments: list[str], total: int = 0) -> list[str]:
        """The last lines that it printed."""
        process = subprocess.Popen(  # noqa: S603 - the new environment's Python and words of our own
            [self._python, "-I", "-c", _GUARD, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self._environment(), pass_fds=(self._lock,), start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            lines = self._follow(process.stdout, total)
            status = process.wait(_VERSION_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status:
            raise Refusal("step", f"{title} failed (status {status})", tuple(lines))
        return lines

    def _follow(self, output: IO[bytes], total: int) -> list[str]:
        """Tell how far pip is, once a second."""
        last: deque[str] = deque(maxlen=_KEPT_LINES)
        done, told_s = 0, time.monotonic()
        for raw in output:
            line = raw.decode(errors="replace").rstrip()
            last.append(line)
            done += line.startswith(("Collecting ", "Processing "))
            if total and time.monotonic() - told_s > _SIGN_S:
                told_s = time.monotonic()
                self._voice.tell(f"library {min(done, total)} of {total}")
        return list(last)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _MISLEADING.match(name)}
        return {**kept, "TMPDIR": str(self._upload / "tmp"), "RBEE_HOME": str(self._home)}

    def _place_engines(self) -> None:
        for wheel in (self._upload / "engines").glob("*/*.whl"):
            directory = self._home / "wheels" / wheel.parent.name
            make_directory(directory)
            for older in directory.glob("*.whl"):
                older.unlink()
            wheel.rename(directory / wheel.name)


def leave_as_it_was(home: Path) -> None:
    """Where there was nothing before there is nothing after a failure."""
    with suppress(OSError):  # it is not empty
        (home / "versions").rmdir()
    if [path.name for path in home.iterdir()] == [LOCK]:
        (home / LOCK).unlink()
        home.rmdir()


class _Heard:
    """Stdin as a file for `tarfile`, which reads whole blocks; every byte is a sign of life."""

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline

    def read(self, count: int) -> bytes:
        stdin = cast("io.BufferedReader", sys.stdin.buffer)
        data = b""
        while len(data) < count and (chunk := stdin.read1(count - len(data))):
            self._lifeline.heard()
            data += chunk
        return data


def require_own_cluster(path: Path, token: str | None) -> None:
    """Raise unless the home has no token yet, or the same one."""
    if token is None or not path.exists():
        return
    there = path.read_text(errors="replace").strip()
    if there != token:
        short = hashlib.sha256(there.encode()).hexdigest()[:6]
        raise Refusal("token", f"{path.parent} has the token of another cluster ({short})")


def write_token(path: Path, token: str | None) -> None:
    """Never in the place of another one, not even of one that was made just now."""
    if token is None or path.exists():
        return
    draft = path.with_name(f".token.{os.getpid()}")
    _write(draft, f"{token}\n")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        require_own_cluster(path, token)
    finally:
        draft.unlink()


def remove_half_made(home: Path) -> None:
    """What killed installations have left."""
    for version in _versions(home):
        if not (version / NOTE).exists():
            shutil.rmtree(version)
    for draft in [*home.glob(".current.*"), *home.glob(".previous.*"), *home.glob(".token.*")]:
        draft.unlink()


def remove_old(home: Path) -> None:
    """All but the current and the one before; what is in use, here or perhaps on another host, stays for now."""
    kept = {_target(home / name) for name in ("current", "previous")}
    for version in _versions(home):
        is_kept = os.path.join("versions", version.name) in kept  # noqa: PTH118 - as it stands in the link
        if not (is_kept or processes_of(version) or _held_elsewhere(home)):
            shutil.rmtree(version, ignore_errors=True)


def _held_elsewhere(home: Path) -> bool:
    """A home may be shared over a network, where processes cannot be seen: the hives' locks can."""
    here = os.uname().nodename
    return any(lock.parent.name != here and is_held(lock) for lock in home.glob("run/*/*.lock"))


def _versions(home: Path) -> Iterable[Path]:
    return [path for path in (home / "versions").glob("*") if path.is_dir() and not path.is_symlink()]


def _target(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:
        return None


def _point(link: Path, target: str) -> None:
    """At every moment it points to the old or to the new one."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.symlink_to(target)
    draft.replace(link)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _bundled_pip() -> tuple[int, ...]:
    """Of this Python; empty where it has none."""
    try:
        import ensurepip  # noqa: PLC0415 - Debian packs it apart
    except ImportError:
        return ()
    return _numbers(ensurepip.version())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
