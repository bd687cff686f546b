"""What goes to a node: rbee's wheel, pip, the lock, perhaps all libraries and engines; as one tar stream."""

import hashlib
import io
import tarfile
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from queen_rbee.domain.nodes.locks import as_lock, pins_for
from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.nodes.here import OwnRbee
from queen_rbee.nodes.wheelhouse import Wheelhouse
from queen_rbee.nodes.wheels import Wheel, repacked
from rbee_shared.errors import InstallFailedError

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Part:
    """One file. `source`: its content, or where it lies. `name`: what the node's installer knows it by."""

    name: str
    source: bytes | Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Payload:
    """`version`: of the rbee in it. `wheel`, `pip`, `lock`: names of parts. `offline`: the libraries are parts too."""

    version: str
    parts: tuple[Part, ...]
    wheel: str
    pip: str | None
    lock: str
    offline: bool

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)

    async def tar(self) -> AsyncGenerator[bytes]:
        """The stream. A file that has changed on disk meanwhile is noticed on the other side, by its hash.

        Raises:
            InstallFailedError: a file is there no more, or cannot be read.
        """
        sent_bytes = 0
        for part in self.parts:
            header = tarfile.TarInfo(part.name)
            header.size = part.size_bytes
            start = header.tobuf(tarfile.GNU_FORMAT)
            yield start
            left_bytes = part.size_bytes
            with _readable():
                opened = await _opened(part.source)
            async with opened as file:
                while left_bytes:
                    wanted_bytes = min(_CHUNK_BYTES, left_bytes)
                    with _readable():
                        chunk = await file.read(wanted_bytes) or bytes(wanted_bytes)  # it has become shorter
                    left_bytes -= len(chunk)
                    yield chunk
            padding = bytes(-part.size_bytes % tarfile.BLOCKSIZE)
            yield padding
            sent_bytes += len(start) + part.size_bytes + len(padding)
        yield bytes(2 * tarfile.BLOCKSIZE + -(sent_bytes + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


def payload(own: OwnRbee, tag: PlatformTag, wheelhouse: Wheelhouse | None, engines: Iterable[Path]) -> Payload:
    """Everything for a Python like `tag`. `engines`: directories with an engine's wheel each. Blocks.

    Raises:
        InstallFailedError: something that is to go along cannot be read.
    """
    wheel = _of_wheel("rbee", own.wheel)
    pip = _own_pip()
    lock = as_lock(pins_for(own.lock, tag.markers())) if wheelhouse is None else wheelhouse.lock
    listed = _of_bytes("libraries.lock", lock.encode())
    files = [("wheelhouse", path) for path in wheelhouse.files] if wheelhouse is not None else []
    files += [(f"engines/{engine.name}", path) for engine in engines for path in sorted(engine.glob("*.whl"))]
    with _readable():
        beside = [_of_file(f"{directory}/{path.name}", path) for directory, path in files]
    return Payload(
        version=own.version,
        parts=(wheel, *([pip] if pip is not None else []), listed, *beside),
        wheel=wheel.name,
        pip=pip.name if pip is not None else None,
        lock=listed.name,
        offline=wheelhouse is not None,
    )


def _own_pip() -> Part | None:
    """Hers where she has one: many systems pack pip apart from Python. A node's own will do as well."""
    try:
        return _of_wheel("pip", repacked("pip"))
    except InstallFailedError:
        return None


def _of_wheel(directory: str, wheel: Wheel) -> Part:
    return Part(f"{directory}/{wheel.name}", wheel.content, len(wheel.content), wheel.sha256)


def _of_bytes(name: str, content: bytes) -> Part:
    return Part(name, content, len(content), hashlib.sha256(content).hexdigest())


def _of_file(name: str, path: Path) -> Part:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Part(name, path, file.tell(), digest.hexdigest())


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except OSError as error:
        what = error.filename or "a file that goes along"
        hint = "Something here may have just replaced it: run the command again."
        raise InstallFailedError(f"{what} cannot be read: {error.strerror}", hint=hint) from None


async def _opened(source: bytes | Path) -> anyio.AsyncFile[bytes]:
    return anyio.wrap_file(io.BytesIO(source)) if isinstance(source, bytes) else await anyio.open_file(source, "rb")
