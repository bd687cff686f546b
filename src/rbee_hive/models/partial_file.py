"""A file that is being fetched: `<name>.<hash>.partial` beside its target, locked, hashed as it grows.

It becomes the target only by rename, after its hash matched and its bytes are on the disk. The lock is the kernel's,
so it goes with the process that held it. Everything here blocks: call it in a thread.
"""

import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from rbee_hive.domain.models.transfer import MIB, Source
from rbee_shared.errors import ChecksumMismatchError, DiskFullError, DownloadFailedError

_FILE_MODE = 0o600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STEP_BYTES = 16 * MIB
_HASH_SHOWN = 12


class Digest:
    """The hashes of the first `done_bytes` of a file, and whether they are those that its source promised."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.done_bytes = 0
        self._sha256 = hashlib.sha256()
        git_head = f"blob {source.size_bytes}\0".encode()
        self._git = None if source.sha256 else hashlib.sha1(git_head, usedforsecurity=False)

    def update(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        if self._git is not None:
            self._git.update(piece)
        self.done_bytes += len(piece)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def problem(self) -> str | None:
        """What is wrong with these bytes if they are to be the whole file."""
        size_bytes, sha256, git_oid = self._source.size_bytes, self._source.sha256, self._source.git_oid
        if size_bytes is not None and self.done_bytes != size_bytes:
            return f"it has {self.done_bytes} bytes where {size_bytes} were promised"
        if sha256 is not None and self.sha256 != sha256:
            return f"its SHA-256 is {self.sha256}, promised was {sha256}"
        if self._git is not None and self._git.hexdigest() != git_oid:
            return f"its git object id is {self._git.hexdigest()}, promised was {git_oid}"
        return None


def hash_more(path: Path, digest: Digest) -> bool:
    """Hash the next 16 MiB of the file at `path`; False when `digest` holds all of it."""
    with _disk_errors(path), path.open("rb", buffering=0) as file:
        file.seek(digest.done_bytes)
        piece = file.read(_STEP_BYTES)
    digest.update(piece)
    return bool(piece)


class PartialFile:
    """Made by `try_lock`, closed by `close`. `digest` covers the bytes that are known to be in it."""

    def __init__(self, path: Path, target: Path, source: Source, descriptor: int) -> None:
        self.path = path
        self.target = target
        self._source = source
        self._descriptor = descriptor
        self._written_back_bytes = 0
        self.digest = Digest(source)

    @classmethod
    def try_lock(cls, target: Path, source: Source) -> "PartialFile | None":
        """The partial file of `target`, made if there is none; None while another process, or task, has it."""
        path = partial_path(target, source)
        with _disk_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
            try:
                ours = _locks(descriptor) and _leads_to(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        if ours:
            return cls(path, target, source, descriptor)
        os.close(descriptor)  # somebody holds it, or has renamed or removed it since we opened it
        return None

    @property
    def done_bytes(self) -> int:
        return self.digest.done_bytes

    @property
    def free_bytes(self) -> int:
        """What may still be written on that disk, as its owner's processes see it."""
        disk = os.fstatvfs(self._descriptor)
        return disk.f_bavail * disk.f_frsize

    def append(self, pieces: Iterable[bytes]) -> None:
        """Write and hash these, behind what is known.

        Raises:
            DiskFullError: there is no room; what was written so far stays.
            DownloadFailedError: the disk fails.
        """
        with _disk_errors(self.path):
            # as one: each call gives the interpreter's lock away and has to get it back from the event loop
            rest = memoryview(b"".join(pieces))
            while rest:
                count = os.pwrite(self._descriptor, rest, self.done_bytes)
                self.digest.update(rest[:count])
                rest = rest[count:]
            self._start_write_back()

    def _start_write_back(self) -> None:
        """Let the disk begin with what came since the last time, or it would have all to do at the end.

        Linux: pages that are not on the disk yet are not dropped by this, their writing is begun.
        """
        if sys.platform == "linux" and self.done_bytes - self._written_back_bytes >= _STEP_BYTES:
            size_bytes = self.done_bytes - self._written_back_bytes
            os.posix_fadvise(self._descriptor, self._written_back_bytes, size_bytes, os.POSIX_FADV_DONTNEED)
            self._written_back_bytes = self.done_bytes

    def cut_to_zero(self) -> None:
        """Forget every byte."""
        with _disk_errors(self.path):
            os.ftruncate(self._descriptor, 0)
        self._written_back_bytes = 0
        self.digest = Digest(self._source)

    def finish(self) -> None:
        """Make it the target, safe against a power cut.

        Raises:
            ChecksumMismatchError: it is not what was promised; it is the partial file still.
        """
        if (problem := self.digest.problem) is not None:
            raise ChecksumMismatchError(f"what was fetched for {self.target.name} is another file: {problem}")
        with _disk_errors(self.path):
            os.ftruncate(self._descriptor, self.done_bytes)
            os.fsync(self._descriptor)
            self.path.replace(self.target)
            _sync_directory(self.target.parent)

    def discard(self) -> None:
        """Remove it. Whoever waits for its lock finds that out."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Give the lock back; the bytes stay."""
        os.close(self._descriptor)


def partial_path(target: Path, source: Source) -> Path:
    """Another content has another name, so that nobody goes on with its bytes."""
    promised = source.sha256 or source.git_oid or ""
    return target.with_name(f"{target.name}.{promised[:_HASH_SHOWN]}.partial")


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(f"{path} cannot grow: {error.strerror}") from None
        raise DownloadFailedError(
            f"{path}: {error.strerror}", hint="Check that directory, its disk and who owns it."
        ) from None
