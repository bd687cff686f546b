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
import sys
import sysconfig
import tarfile
import time
import venv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from queen_rbee.nodes.far.ground import Lifeline, Refusal, Voice, conclude, make_directory, only_one
from queen_rbee.nodes.far.steps import Steps
from queen_rbee.nodes.far.versions import (
    current_note,
    leave_as_it_was,
    make_current,
    mend_previous,
    remove_half_made,
    remove_old,
    require_own_cluster,
    write_token,
)

_UPLOAD = "upload"
_CHUNK_BYTES = 256 * 1024
_TAR_BLOCK_BYTES = 10240

_PIP_INSTALL = (
    "pip", "install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-user",
    "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--timeout", "15", "--retries", "2",
)  # fmt: skip
_OFFLINE = ("--isolated", "--no-index")


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


def main(order_json: str) -> NoReturn:
    """Do it, and say how it ended."""
    order = Order(**json.loads(order_json))
    voice, lifeline = Voice(order.nonce), Lifeline(order.silence_s)
    os.umask(0o077)
    conclude(voice, lifeline, lambda: installed(order, voice, lifeline))


def installed(order: Order, voice: Voice, lifeline: Lifeline) -> dict[str, Any]:
    """The note of what is installed now."""
    home = Path(order.home)
    require_own_cluster(home / "token", order.token)  # before the first sign of an installation
    with only_one(home, voice, lifeline, order.wait_s) as lock:
        work = Installation(home, order, voice, lock)
        try:
            with lifeline.listening():
                require_own_cluster(home / "token", order.token)
                remove_half_made(home)
                mend_previous(home)
                note = work.is_there_already()
            if note is None:
                note = work.done(lifeline)
        except BaseException:
            lifeline.close()
            shutil.rmtree(work.directory, ignore_errors=True)
            leave_as_it_was(home)
            raise
        with suppress(OSError):  # the next installation tries again
            remove_old(home)
    return note


class Installation:
    """One version in the making. `lock` is held as long as anything that was started for it runs."""

    def __init__(self, home: Path, order: Order, voice: Voice, lock: int) -> None:
        self._home = home
        self._order = order
        self._voice = voice
        digest = order.files[order.wheel][1]
        self._id = f"{order.version}-{digest[:12]}-{os.urandom(3).hex()}"
        self.directory = home / "versions" / self._id
        self._upload = self.directory / _UPLOAD
        self._lock = lock

    def is_there_already(self) -> dict[str, Any] | None:
        """The note of the current version if it is this very one, and runs: somebody else was quicker.

        The wheel tells: the libraries that belong to it are locked by a file in it.
        """
        note, mine = current_note(self._home), self._note()
        if note is None or note.get("wheel_sha256") != mine["wheel_sha256"]:
            return None
        if any(type(note.get(name)) is not type(value) for name, value in mine.items()):
            return None
        try:
            self._try_out(self._home / "versions" / note["id"])
        except (Refusal, OSError):
            return None
        self._voice.tell(f"rbee {self._order.version} is there already")
        write_token(self._home / "token", self._order.token)
        return note

    def done(self, lifeline: Lifeline) -> dict[str, Any]:
        """Its note, when it is the current version."""
        self._voice.say(ready=True)  # until now the queen has sent nothing but signs of life
        self._receive(lifeline)
        with lifeline.listening():
            self._make()
        lifeline.close()
        note = self._note()
        self._finish(note)
        return note

    def _receive(self, lifeline: Lifeline) -> None:
        """Every file that was announced, whole and unharmed."""
        make_directory(self._upload / "tmp")
        lacking = dict(self._order.files)
        stream = cast("IO[bytes]", _Heard(lifeline))
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_TAR_BLOCK_BYTES) as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    expected = lacking.pop(member.name, None)
                    if content is None or expected is None:
                        raise Refusal("system", f"{member.name!r} came, and was not announced")
                    self._keep(member.name, content, expected)
        except tarfile.TarError as error:
            raise Refusal("interrupted", f"the upload broke off: {error}") from None
        if lacking:
            raise Refusal("interrupted", f"the upload broke off: {len(lacking)} files are missing")

    def _make(self) -> None:
        """The environment with everything in it, tried."""
        self._voice.tell(f"making an environment with Python {sys.version.split()[0]}")
        try:
            venv.EnvBuilder(symlinks=True).create(self.directory)
        except ValueError as error:  # a colon in the path
            raise Refusal("step", str(error)) from None
        self._install_pip()
        self._install_all()
        self._try_out(self.directory)

    def _note(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "version": self._order.version,
            "wheel_sha256": self._order.files[self._order.wheel][1],
            "python": sys.version.split()[0],
            "installed_at_unix": int(time.time()),
        }

    def _finish(self, note: dict[str, Any]) -> None:
        """The moment from which it is the current one."""
        self._place_engines()
        shutil.rmtree(self._upload)
        write_token(self._home / "token", self._order.token)
        make_current(self._home, note)

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
            # a pure wheel is installed by unpacking it: a pip that installs pip from an archive takes seconds
            shutil.unpack_archive(self._upload / sent, sysconfig.get_path("purelib", "venv", self._scheme()), "zip")
        elif _bundled_pip():
            self._steps(self.directory).run("installing pip", ["ensurepip"])
        else:
            raise Refusal("step", "there is no pip: neither has this Python one, nor the queen")

    def _install_all(self) -> None:
        """The libraries and rbee itself, each checked by its hash."""
        order = self._order
        lock = self._upload / order.lock
        own = self._upload / "own.lock"
        own.write_text(f"{(self._upload / order.wheel).as_uri()} --hash=sha256:{order.files[order.wheel][1]}\n")
        total = lock.read_text().count("==")
        verb = "unpacking" if order.offline else "fetching"
        self._voice.tell(f"{verb} {total} libraries and installing rbee {order.version}")
        source = [*_OFFLINE, "--find-links", str(self._upload / "wheelhouse")] if order.offline else []

        def hear(lines: list[str]) -> None:
            begun = sum(line.startswith(("Collecting ", "Processing ")) for line in lines)
            self._voice.tell(
                f"library {begun} of {total}" if begun < total else f"writing {total} libraries to the disk"
            )

        self._steps(self.directory).run(
            "installing rbee", [*_PIP_INSTALL, *source, "-r", str(lock), "-r", str(own)], hear
        )

    def _scheme(self) -> dict[str, str]:
        return {"base": str(self.directory), "platbase": str(self.directory)}

    def _steps(self, directory: Path) -> Steps:
        """Run by the Python of the version in `directory`."""
        return Steps(str(directory / "bin" / "python"), self._home, self._upload / "tmp", self._lock)

    def _try_out(self, directory: Path) -> None:
        self._voice.tell("trying it out")
        lines = self._steps(directory).run("trying out rbee-hive", [str(directory / "bin" / "rbee-hive"), "--version"])
        if not any(line.split()[-1:] == [self._order.version] for line in lines):
            raise Refusal("step", f"rbee-hive does not say that it is {self._order.version}", tuple(lines))

    def _place_engines(self) -> None:
        for wheel in (self._upload / "engines").glob("*/*.whl"):
            directory = self._home / "wheels" / wheel.parent.name
            make_directory(directory)
            wheel.replace(directory / wheel.name)  # at every moment there is one, for the hive that may run there
            for older in directory.glob("*.whl"):
                if older.name != wheel.name:
                    older.unlink()


class _Heard:
    """Stdin as a file for `tarfile`, which reads whole blocks; every byte is a sign of life.

    Line breaks before the first block are only that: they were on their way when the upload was asked for.
    """

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline
        self._has_begun = False

    def read(self, count: int) -> bytes:
        stdin = cast("io.BufferedReader", sys.stdin.buffer)
        data = b""
        while len(data) < count and (chunk := stdin.read1(count - len(data))):
            self._lifeline.heard()
            data += chunk if self._has_begun else chunk.lstrip(b"\n")
            self._has_begun = self._has_begun or bool(data)
        return data


def _bundled_pip() -> tuple[int, ...]:
    """Of this Python; empty where it has none."""
    try:
        import ensurepip  # noqa: PLC0415 - Debian packs it apart
    except ImportError:
        return ()
    return _numbers(ensurepip.version())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
