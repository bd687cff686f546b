"""All that rbee is made of, ready for one kind of machine: `HOME/wheelhouse/<platform>-<cpXY>/`.

For a platform like the queen's it is made of what is installed here, without any network; for another one it is
fetched, each file by its locked hash. It has a list of hashes of its own, so that nothing is installed unchecked. One
is there whole or not at all, however many make it at once, and counts only for the locks that it was made for.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT

import anyio
import anyio.to_thread

from queen_rbee.domain.nodes.far_end import far_error
from queen_rbee.domain.nodes.locks import Pin, as_lock, pins_for
from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.nodes.here import ENGINE, OwnRbee
from queen_rbee.nodes.wheels import repacked
from rbee_shared.errors import DiskFullError, InstallFailedError, RbeeError, RequestTimeoutError
from rbee_shared.paths import Home
from rbee_shared.units import format_bytes

WORKER_NEEDS = ("jinja2", "llguidance", "markupsafe", "numpy")
"""What a worker imports beside its engine: with it a node makes worker builds without an index."""
_LOCK = "wheelhouse.lock"
_ENGINES = "engines"
_PRIVATE_DIR = 0o700
_DOWNLOAD_S = 900.0
_LEFT_S = 4 * _DOWNLOAD_S
"""Nobody is at it for that long: what is older was left by a queen that was killed."""
_SHOWN_LINES = 12
_LACKING = "See which package index pip uses on this machine; it must have wheels for that platform."
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Wheelhouse:
    """As it was when it was looked at. `lock`: its list of hashes, for pip."""

    path: Path
    files: tuple[Path, ...]
    lock: str
    size_bytes: int

    @classmethod
    def at(cls, path: Path, lock: str) -> "Wheelhouse":
        """Blocks."""
        files = tuple(sorted(path.glob("*.whl")))
        return cls(path, files, lock, sum(file.stat().st_size for file in files))


def root(home: Home) -> Path:
    return home.root / "wheelhouse"


def current_wheelhouse(home: Home, own: OwnRbee, name: str) -> Wheelhouse | None:
    """The one for platforms of that name, if it was made for the locks of this rbee. Blocks."""
    path = root(home) / name
    try:
        lock = (path / _LOCK).read_text(encoding="utf-8")
        return Wheelhouse.at(path, lock) if lock.startswith(_header(own)) else None
    except OSError:  # there is none, or it gives way just now
        return None


def current_wheelhouses(home: Home, own: OwnRbee) -> frozenset[str]:
    """The names of the platforms that a current one is there for. Blocks."""
    names = (path.parent.name for path in root(home).glob(f"*/{_LOCK}"))
    return frozenset(name for name in names if current_wheelhouse(home, own, name) is not None)


async def make_wheelhouse(home: Home, own: OwnRbee, tag: PlatformTag, tell: Callable[[str], None]) -> Wheelhouse:
    """Make the one for `tag`; one that is there gives way when the new one is complete.

    Raises:
        InstallFailedError: a library is not here as it is locked, or there is none for that platform.
        DiskFullError: there is no room for it.
    """
    pins = _pins(own, tag)
    partial = root(home) / f"{tag.name}.{_random()}.partial"
    try:
        await anyio.to_thread.run_sync(_begin, partial)
        if tag.takes(own.tag):
            tell(f"packing {len(pins)} libraries of this machine")
            made = await anyio.to_thread.run_sync(_pack, partial, pins)
        else:
            tell(f"fetching {len(pins)} libraries for {tag.name}")
            await _download(partial, pins, tag)
            made = pins
        text = as_lock(made, _header(own))
        wheelhouse = await anyio.to_thread.run_sync(_finish, partial, root(home) / tag.name, text)
    except OSError as error:
        raise _told(error, root(home)) from None
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(partial, ignore_errors=True))
    tell(f"{len(wheelhouse.files)} files, {format_bytes(wheelhouse.size_bytes)}, in {wheelhouse.path}")
    return wheelhouse


def own_engine(home: Home, own: OwnRbee) -> Path | None:
    """A directory with the wheel of the engine that is installed here, named as a hive looks for it. Blocks.

    It runs only where the processor can do all that this one can: `Assessment.own_engine` says whether.
    """
    if own.engine is None:
        return None
    directory = root(home) / _ENGINES / own.engine
    wheel = repacked(ENGINE)
    draft = directory / f"{wheel.name}.{_random()}.partial"
    try:
        directory.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        for left in filter(_is_left, directory.glob("*.partial")):
            left.unlink(missing_ok=True)
        draft.write_bytes(wheel.content)
        draft.replace(directory / wheel.name)
    except OSError as error:
        raise _told(error, directory) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return directory


def _told(error: OSError, directory: Path) -> RbeeError:
    text = f"{directory}: {error.strerror}"
    return DiskFullError(text) if error.errno in _NO_ROOM else InstallFailedError(text, hint="Look at that directory.")


def _header(own: OwnRbee) -> str:
    digest = hashlib.sha256(f"{own.lock}\0{own.engine_lock}".encode()).hexdigest()
    return f"# for the locks {digest}\n"


def _pins(own: OwnRbee, tag: PlatformTag) -> tuple[Pin, ...]:
    needs = [pin for pin in pins_for(own.engine_lock, tag.markers()) if pin.name in WORKER_NEEDS]
    by_name = {pin.name: pin for pin in [*needs, *pins_for(own.lock, tag.markers())]}
    return tuple(by_name[name] for name in sorted(by_name))


def _random() -> str:
    """Several threads of one queen may make the same thing."""
    return os.urandom(4).hex()


def _is_left(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _LEFT_S
    except FileNotFoundError:
        return False


def _begin(partial: Path) -> None:
    """An empty directory to make one in. What queens that were killed have left is put in order."""
    directory = partial.parent
    directory.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
    with _alone(directory):
        for replaced in directory.glob("*.old"):
            target = directory / replaced.name.rsplit(".", 2)[0]
            if target.exists():
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                replaced.rename(target)  # its successor has not come
        for left in filter(_is_left, directory.glob("*.partial")):
            shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(mode=_PRIVATE_DIR)


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """Nobody else gives a wheelhouse its place meanwhile, no other thread and no other queen of that home."""
    with directory.with_suffix(".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pack(partial: Path, pins: Iterable[Pin]) -> tuple[Pin, ...]:
    """What lies here is packed anew, so it has other hashes than the lock's."""
    made = []
    for pin in pins:
        wheel = repacked(pin.name, pin.version)
        (partial / wheel.name).write_bytes(wheel.content)
        made.append(Pin(pin.name, pin.version, (f"sha256:{wheel.sha256}",)))
    return tuple(made)


async def _download(partial: Path, pins: Iterable[Pin], tag: PlatformTag) -> None:
    """pip judges markers by the Python that runs it, so they were judged before."""
    listed = partial / _LOCK
    await anyio.Path(listed).write_text(as_lock(pins), encoding="utf-8")
    platforms = [argument for platform in tag.wheel_platforms() for argument in ("--platform", platform)]
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off", "--timeout", "15", "--retries", "2",
        "--implementation", "cp", "--python-version", tag.python_version, *platforms,
        "--dest", str(partial), "-r", str(listed),
    ]  # fmt: skip
    with anyio.move_on_after(_DOWNLOAD_S):
        result = await anyio.run_process(command, check=False, stderr=STDOUT)
        if result.returncode:
            lines = result.stdout.decode(errors="replace").splitlines()[-_SHOWN_LINES:]
            failed = {"why": "step", "text": "fetching the libraries failed", "lines": lines}
            raise far_error(failed, tag.name, lacking_hint=_LACKING)
        return
    raise RequestTimeoutError(f"the libraries for {tag.name} did not come within {_DOWNLOAD_S:.0f} s")


def _finish(partial: Path, target: Path, lock: str) -> Wheelhouse:
    """Give it its place. The one before gives way: for a moment there is neither."""
    (partial / _LOCK).write_text(lock, encoding="utf-8")
    replaced = partial.with_suffix(".old")
    with _alone(target.parent):
        if target.exists():
            target.rename(replaced)
        try:
            partial.rename(target)
        except OSError:
            with suppress(FileNotFoundError):
                replaced.rename(target)
            raise
        made = Wheelhouse.at(target, lock)
    shutil.rmtree(replaced, ignore_errors=True)
    return made
