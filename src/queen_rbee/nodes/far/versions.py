"""The versions of rbee in a home, and which of them is the current one.

`HOME/versions/<id>` with an `installed.json` is a whole one; `HOME/current` and `HOME/previous` are links to two of
them, each pointing at every moment to a whole one. The note of the current one says which one it `replaces`, so a kill
between the two links loses nothing. One that a process runs from is never removed.
"""

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from queen_rbee.nodes.far.ground import LOCK, Refusal, is_held, processes_of

NOTE = "installed.json"
_DRAFTS = (".current.*", ".previous.*", ".token.*")
_PRIVATE_FILE = 0o600


def make_current(home: Path, note: dict[str, Any]) -> None:
    """From here on the version of that note is the current one, and the one that it replaces is the previous one."""
    _write(home / "versions" / note["id"] / NOTE, json.dumps({**note, "replaces": _replaced_by(home, note)}))
    _point(home / "current", _link_text(note["id"]))
    with suppress(OSError):  # the next installation mends it
        mend_previous(home)


def current_note(home: Path) -> dict[str, Any] | None:
    """What the current version says of itself; None where there is none, or its note is damaged."""
    try:
        note = json.loads((home / "current" / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_its_own = isinstance(note, dict) and _target(home / "current") == _link_text(str(note.get("id")))
    return note if is_its_own else None


def mend_previous(home: Path) -> None:
    """Have `previous` point to what the current version has replaced, if that is still there."""
    replaced = _replaced(home)
    if replaced is not None and _target(home / "previous") != replaced:
        _point(home / "previous", replaced)


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
    for draft in [path for pattern in _DRAFTS for path in home.glob(pattern)]:
        draft.unlink()


def remove_old(home: Path) -> None:
    """All but the current and the one before; what is in use, here or perhaps on another host, stays for now."""
    kept = {_target(home / name) for name in ("current", "previous")}
    kept.add(_replaced(home))
    for version in _versions(home):
        if not (_link_text(version.name) in kept or processes_of(version) or _held_elsewhere(home)):
            shutil.rmtree(version, ignore_errors=True)


def leave_as_it_was(home: Path) -> None:
    """Where there was nothing before there is nothing after a failure, not even the sign of an installation."""
    with suppress(OSError):  # there are versions, or other files
        (home / "versions").rmdir()
    if not (home / "versions").exists():
        (home / LOCK).unlink(missing_ok=True)
        with suppress(OSError):
            home.rmdir()


def _replaced(home: Path) -> str | None:
    """Where the version lies that the current one has replaced, as a link to it says it; None where there is none."""
    version_id = (current_note(home) or {}).get("replaces")
    if not isinstance(version_id, str) or not (home / "versions" / version_id / NOTE).is_file():
        return None
    return _link_text(version_id)


def _replaced_by(home: Path, note: dict[str, Any]) -> str | None:
    """One that is made anew, because it does not run any more, takes no other one's place but its own."""
    was = current_note(home)
    if was is None:
        return None
    return was.get("replaces") if was.get("wheel_sha256") == note["wheel_sha256"] else was["id"]


def _held_elsewhere(home: Path) -> bool:
    """A home may be shared over a network, where processes cannot be seen: the hives' locks can."""
    here = os.uname().nodename
    return any(lock.parent.name != here and is_held(lock) for lock in home.glob("run/*/*.lock"))


def _versions(home: Path) -> list[Path]:
    return [path for path in (home / "versions").glob("*") if path.is_dir() and not path.is_symlink()]


def _link_text(version_id: str) -> str:
    """Relative, so that a home may be moved."""
    return f"versions/{version_id}"


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
