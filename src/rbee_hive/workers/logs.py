"""What workers write to their standard error: one file per process in `logs/`, bounded in size and in number.

The worker holds its file open to append, so a file that has grown too large is copied aside and emptied; lines that it
writes in between may be lost. What cannot be tidied up stays, and that is logged: no worker is worse off for it.
Blocking: call it in a thread.
"""

import logging
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

from rbee_shared.redaction import printable_line, redact

_LOG = logging.getLogger("rbee.hive.worker")
MAX_BYTES = 5 * 1024 * 1024
KEPT_FILES = 32
KEPT_OF_ONE_WORKER = 3
_KEPT_BYTES = 1024 * 1024
_LAST_LINES = 50
_LAST_BYTES = 16 * 1024
_PRIVATE_FILE = 0o600


def log_of(logs: Path, worker_id: str, process_number: int) -> Path:
    """`worker-cpu-1a2b.err` for its first process (number 0), `worker-cpu-1a2b.1.err` for the next."""
    return logs / (f"{worker_id}.{process_number}.err" if process_number else f"{worker_id}.err")


def bound(log: Path) -> None:
    """Empty a log that is too large, its end copied aside; on a full disk it is emptied without that.

    Raises:
        OSError: it, or its end, cannot be written.
    """
    try:
        with log.open("rb+") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes <= MAX_BYTES:
                return
            try:
                file.seek(size_bytes - _KEPT_BYTES)
                _copy(file, _aside(log))
            finally:
                file.truncate(0)
    except FileNotFoundError:
        return  # the worker has ended, and well


def last_words(log: Path) -> tuple[str, ...]:
    """The last lines of a process, also those copied aside; secrets redacted."""
    text = (_end(_aside(log)) + _end(log))[-_LAST_BYTES:].decode(errors="replace")
    return tuple(redact(printable_line(line)) for line in text.splitlines()[-_LAST_LINES:])


def remove(logs: Path, worker_id: str) -> None:
    """Nobody wants to know what a worker said that ended as it should."""
    for path in _files(logs):
        if _worker_id(path) == worker_id:
            _unlink(path)


def prune_own(logs: Path, worker_id: str) -> None:
    """Keep the newest files of a worker that was started again."""
    _keep_newest([path for path in _files(logs) if _worker_id(path) == worker_id], KEPT_OF_ONE_WORKER)


def prune(logs: Path, live: Collection[str]) -> None:
    """Keep the newest files of workers that have ended; those of `live` ones are not touched."""
    _keep_newest([path for path in _files(logs) if _worker_id(path) not in live], KEPT_FILES)


def _keep_newest(paths: Iterable[Path], kept: int) -> None:
    for path in sorted(paths, key=_changed_at)[:-kept]:
        _unlink(path)


def _files(logs: Path) -> list[Path]:
    try:
        return [*logs.glob("worker-*.err"), *logs.glob("worker-*.err.old")]
    except OSError as error:
        _LOG.warning("the logs of workers are not tidied up: %s", error)
        return []


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("the log of an ended worker stays: %s", error)


def _copy(file: BinaryIO, target: Path) -> None:
    """Copy the rest of `file`."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE), "wb") as copy:
        shutil.copyfileobj(file, copy)


def _worker_id(path: Path) -> str:
    return path.name.partition(".")[0]


def _aside(log: Path) -> Path:
    return log.with_name(f"{log.name}.old")


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
            return file.read()
    except OSError:
        return b""
