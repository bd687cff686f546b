"""The directories of worker builds: `<kind>-<version>`, made as `<kind>-<version>.partial` and then renamed. Blocks.

Each finished one says what it is in its `build.json`, so that a lost catalog can be made anew from them.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from rbee_hive.domain.builds.build_plan import Target, build_id, builtin_id, wheel_directory
from rbee_hive.domain.builds.engine_lock import EngineLock, read_lock
from rbee_shared.contracts.provisions import BuildKind, BuildRow
from rbee_shared.errors import BuildFailedError

_LOG = logging.getLogger("rbee.hive.builds")
_NOTE = "build.json"
_MOST_NOTE_BYTES = 64 * 1024
_PARTIAL = ".partial"
_PRIVATE_DIR = 0o700
_PRIVATE_FILE = 0o600
_ENGINE_PACKAGE = "llama_cpp"
_WHEEL_NAME = "llama_cpp_python-*.whl"


def shipped_lock() -> EngineLock:
    """The versions that this rbee was tested with."""
    return read_lock(files("rbee_hive.builds").joinpath("engine.lock").read_text(encoding="utf-8"))


def begin(workers: Path, kind: BuildKind, version: str) -> Path:
    """An empty directory to make a build in. What killed hives have left of that kind is removed; hold its lock."""
    workers.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
    for left in workers.glob(f"{kind}-*{_PARTIAL}"):
        discard(left)
    partial = workers / f"{build_id(kind, version)}{_PARTIAL}"
    for part in (partial, partial / "site", partial / "tmp"):
        part.mkdir(mode=_PRIVATE_DIR)
    return partial


def discard(partial: Path) -> None:
    """Remove it, first out of the way: its name is free at once, however long the rest takes."""
    shutil.rmtree(_set_aside(partial), ignore_errors=True)


def describe(partial: Path, row: BuildRow) -> BuildRow:
    """Write what was installed into its note; the row with the path that it will have, and its size."""
    site = partial / "site"
    row = row.model_copy(update={"path": str(partial.with_name(row.id)), "size_bytes": _size_bytes(site)})
    descriptor = os.open(site / _NOTE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as note:
        note.write(row.model_dump_json())
    return row


def finish(partial: Path, row: BuildRow) -> None:
    """Give it its place. A build of the same name gives way: for a moment there is neither."""
    target = partial.with_name(row.id)
    replaced = _set_aside(target)
    (partial / "site").rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


def forget_log(log: Path) -> None:
    """Begin a log anew; where that is not allowed it grows."""
    try:
        log.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("the log of an earlier look stays: %s", error)


def scan(workers: Path) -> list[BuildRow]:
    """What the finished directories say they are. One that says nothing, or is called otherwise, is passed over."""
    rows = []
    for directory in sorted(workers.glob("*-*")) if workers.is_dir() else []:
        if directory.suffix == _PARTIAL or directory.is_symlink() or not directory.is_dir():
            continue
        row = _read_note(directory)
        if row is None or row.source == "environment" or row.id != directory.name:
            _LOG.warning("%s is no worker build of this rbee: passed over", directory)
            continue
        rows.append(row.model_copy(update={"path": str(directory)}))  # the home may have moved
    return rows


def is_there(row: BuildRow) -> bool:
    """Whether the directory still is what the row says; the environment always is, as far as this can tell."""
    return row.path is None or (Path(row.path) / _ENGINE_PACKAGE).is_dir()


def remove(workers: Path, row: BuildRow) -> None:
    """Remove the files of a build.

    Raises:
        BuildFailedError: they cannot be removed.
    """
    directory = workers / row.id
    try:
        discard(directory)
    except OSError as error:
        raise BuildFailedError(f"{directory} cannot be removed: {error}", hint="Remove it by hand.") from None


def find_wheel(wheels: Path | None, kind: BuildKind, target: Target) -> Path | None:
    """The engine's wheel that the operator has put into `<wheels>/<kind>-<version>-<python>-<platform>/`, if any.

    Raises:
        BuildFailedError: there are several.
    """
    if wheels is None:
        return None
    found = sorted((wheels / wheel_directory(kind, target)).glob(_WHEEL_NAME))
    if len(found) > 1:
        raise BuildFailedError(
            f"{found[0].parent} has {len(found)} wheels of llama-cpp-python", hint="Leave the right one there."
        )
    return found[0] if found else None


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Of those packages that the hive's own environment has."""
    importlib.invalidate_caches()
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def unproven_environment(target: Target) -> BuildRow | None:
    """The hive's own environment as a build for the processor, by what is installed; None without an engine."""
    version = installed_versions(("llama-cpp-python",)).get("llama-cpp-python")
    if version is None or environment_fingerprint() is None:
        return None
    return BuildRow(
        id=builtin_id("cpu"),
        kind="cpu",
        version=version,
        backends=("cpu",),
        python=target.python,
        platform=target.platform,
        made_at_unix=0,
        source="environment",
    )


def environment_fingerprint() -> str | None:
    """Changes when another engine is installed into the hive's own environment; None while there is none."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(_ENGINE_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    stamps = [_modified_ns(path) for path in (package, package / "lib")]
    versions = installed_versions(("llama-cpp-python", "rbee"))
    return " ".join(map(str, (package, *stamps, *sorted(versions.items()))))


def _set_aside(directory: Path) -> Path:
    """Where it is now, called so that the next build of its kind removes it; there may be nothing."""
    doomed = directory.with_name(f"{directory.stem}.{os.urandom(4).hex()}{_PARTIAL}")
    with suppress(FileNotFoundError):
        directory.rename(doomed)
    return doomed


def _read_note(directory: Path) -> BuildRow | None:
    try:
        with (directory / _NOTE).open("rb") as note:
            return BuildRow.model_validate_json(note.read(_MOST_NOTE_BYTES))
    except (OSError, ValidationError):
        return None


def _size_bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*"))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
