"""Removes rbee from the node it runs on. What rbee has not made stays, and is named.

Refuses while anything of it runs, and where the directory is not one that a queen has installed into. Symbolic links
are removed, never followed. Broken off, it can be done again: the sign by which it knows the directory goes last.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from queen_rbee.nodes.far.ground import LOCK, Lifeline, Refusal, Voice, conclude, is_held, only_one, processes_of
from queen_rbee.nodes.far.versions import require_own_cluster

_BLOCK_BYTES = 512
_INSTALLERS = ("current", "previous", "versions", "wheels", ".current.*", ".previous.*", ".token.*")
_MODELS = ("models", "models.db*")
_HIVES = ("workers", "workers.db*", "logs", "run", "token")
_OF_A_QUEEN = "queen.db"
_IN_USE_AGAIN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)


@dataclass(frozen=True)
class Order:
    """What the queen wants. `token`: of her cluster; a home with another one is another's."""

    nonce: str
    home: str
    token: str | None
    keep_models: bool
    wait_s: float
    silence_s: float


def main(order_json: str) -> NoReturn:
    """Do it, and say how it ended."""
    order = Order(**json.loads(order_json))
    voice, lifeline = Voice(order.nonce), Lifeline(order.silence_s)
    conclude(voice, lifeline, lambda: removed(order, voice, lifeline))


def removed(order: Order, voice: Voice, lifeline: Lifeline) -> dict[str, Any]:
    """How much was freed, and what stays."""
    home = Path(order.home)
    if not home.exists():
        return {"freed_bytes": 0, "left": []}
    require_ours(home)
    require_own_cluster(home / "token", order.token)
    with only_one(home, voice, lifeline, order.wait_s), lifeline.listening():
        require_own_cluster(home / "token", order.token)  # whoever was waited for may have brought another one
        require_at_rest(home)
        freed_bytes = sum(_remove(path) for path in _doomed(home, keep_models=order.keep_models))
        left = sorted(path.name for path in home.iterdir() if path.name != LOCK)
        lifeline.close()
        (home / LOCK).unlink()
        if not left and not home.is_symlink():
            _remove_empty(home)
    return {"freed_bytes": freed_bytes, "left": left}


def require_ours(home: Path) -> None:
    """Raise unless `home` is a directory of this user that an installation has been in."""
    account = Path.home().resolve()
    real = home.resolve()
    if not real.is_dir() or real == account or real in account.parents:
        raise Refusal("foreign", f"{home} is not a directory of rbee's own")
    if real.stat().st_uid != os.geteuid() or not (real / LOCK).is_file() or (real / LOCK).is_symlink():
        raise Refusal("foreign", f"no queen has installed rbee in {home}, so nothing is removed there")


def require_at_rest(home: Path) -> None:
    """Raise while something runs from it or in it, on this machine or on another one that shares it."""
    running = processes_of(home / "versions")
    held = [str(lock.relative_to(home)) for lock in sorted(home.glob("run/*/*.lock")) if is_held(lock)]
    if running or held:
        what = ", ".join([*(f"pid {pid}" for pid in running), *held])
        raise Refusal("running", f"rbee still runs in {home}: {what}")


def _doomed(home: Path, *, keep_models: bool) -> Iterable[Path]:
    """Where a queen lives too, what her own hive has made is hers."""
    names = list(_INSTALLERS)
    if not (home / _OF_A_QUEEN).exists():
        names += [*_HIVES, *(() if keep_models else _MODELS)]
    return [path for name in names for path in sorted(home.iterdir()) if path.match(name)]


def _remove(path: Path) -> int:
    """The bytes that it took."""
    if path.is_symlink() or not path.is_dir():
        size = _size_bytes(path)
        path.unlink()
        return size
    size = _size_bytes(path) + sum(_size_bytes(below) for below in path.rglob("*"))
    shutil.rmtree(path)
    return size


def _remove_empty(home: Path) -> None:
    """The next installation may be in it already: from the moment on in which the lock went."""
    try:
        home.rmdir()
    except OSError as error:
        if error.errno not in _IN_USE_AGAIN:
            raise


def _size_bytes(path: Path) -> int:
    return path.lstat().st_blocks * _BLOCK_BYTES
