"""Model files on disk: what may be read, what their headers say, whether they are still what the catalog knows.

Everything here blocks and is done in threads; links are followed before a path is judged.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import anyio.to_thread

from rbee_hive.domain.models.file_rules import combined_sha256, require_allowed, require_gguf, split_names
from rbee_hive.domain.models.gguf import GgufHeader, quant_name, read_header
from rbee_hive.domain.models.quant_names import is_gguf, quant_of
from rbee_shared.contracts.models import ModelFileRow, ModelRow
from rbee_shared.errors import InvalidRequestError, ModelInvalidError, ModelNotFoundError

_HASH_BYTES = 8 * 1024 * 1024
_MAGIC_BYTES = 4


@dataclass(frozen=True)
class ModelFacts:
    """A model's files, its first one at `path`, and what its header says."""

    path: Path
    files: tuple[ModelFileRow, ...]
    headers: tuple[GgufHeader, ...] = field(repr=False, default=())
    name: str = ""
    architecture: str | None = None
    quant: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.files)

    @property
    def sha256(self) -> str | None:
        return combined_sha256([part.sha256 for part in self.files])


def embedded_model() -> Path:
    """Where the storyteller lies that ships with the package."""
    return Path(str(files("rbee_shared").joinpath("assets", "storyteller.gguf")))


async def inspect(path: str, *, roots: Iterable[Path] | None, hashes: Mapping[str, str] | None = None) -> ModelFacts:
    """The model whose first file lies at `path`, all parts of a split one; `roots` None allows any place.

    `hashes`: SHA-256 by file name, where they are known.

    Raises:
        InvalidRequestError: the path is not absolute.
        ForbiddenError: it is outside `roots`.
        ModelNotFoundError: it, or one of its parts, is not there, or may not be read.
        ModelInvalidError: it is no GGUF file, or a damaged one.
    """
    allowed = None if roots is None else tuple(roots)
    return await anyio.to_thread.run_sync(_inspect, path, allowed, hashes or {})


async def sha256_of(path: Path, tell: Callable[[int], None] | None = None) -> str:
    """The hash of a file; `tell` is called with the bytes done, from another thread. May be abandoned at any time."""
    return await anyio.to_thread.run_sync(_sha256, path, tell, abandon_on_cancel=True)


async def stat_of(path: str) -> tuple[int, int] | None:
    """Size and mtime (ns) of a file; None if there is none."""
    return await anyio.to_thread.run_sync(_stat, path)


async def headers_of(row: ModelRow) -> tuple[GgufHeader, ...]:
    """The headers of a downloaded model's files.

    Raises:
        ModelNotFoundError, ModelInvalidError: as `inspect`.
    """
    return await anyio.to_thread.run_sync(lambda: tuple(_header(Path(part.path)) for part in row.files))


async def scan(directory: Path) -> tuple[Path, ...]:
    """The GGUF files below `directory` that a catalog may list: of split ones the first part, partials left out."""
    return await anyio.to_thread.run_sync(_scan, directory)


def _inspect(text: str, roots: tuple[Path, ...] | None, hashes: Mapping[str, str]) -> ModelFacts:
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequestError(f"{text!r} is no absolute path")
    first = Path(text).resolve()
    paths = [first.with_name(name) for name in split_names(first.name)]
    if roots is not None:
        allowed = [root.expanduser().resolve() for root in roots]
        for path in paths:
            require_allowed(path.resolve(), allowed)
    headers = tuple(_header(path) for path in paths)
    metadata = headers[0].metadata
    return ModelFacts(
        path=first,
        files=tuple(_file_row(path, hashes.get(path.name)) for path in paths),
        headers=headers,
        name=_text(metadata.get("general.name")),
        architecture=_text(metadata.get("general.architecture")) or None,
        quant=quant_of(first.name) or quant_name(headers[0]),
    )


def _header(path: Path) -> GgufHeader:
    if not path.exists():
        raise ModelNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ModelInvalidError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            require_gguf(str(path), size_bytes, file.read(_MAGIC_BYTES))
            file.seek(0)
            return read_header(file, size_bytes)
    except ModelInvalidError as error:
        raise ModelInvalidError(error.message if str(path) in error.message else f"{path}: {error.message}") from None
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}") from None


def _file_row(path: Path, sha256: str | None) -> ModelFileRow:
    stat = path.stat()
    return ModelFileRow(path=str(path), size_bytes=stat.st_size, sha256=sha256, modified_ns=stat.st_mtime_ns)


def _text(value: object) -> str:
    return value[:256] if isinstance(value, str) else ""


def _sha256(path: Path, tell: Callable[[int], None] | None) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
            done += len(piece)
            if tell is not None:
                tell(done)
    return digest.hexdigest()


def _stat(path: str) -> tuple[int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _scan(directory: Path) -> tuple[Path, ...]:
    found = (path for path in directory.rglob("*") if is_gguf(path.name) and path.is_file() and not path.is_symlink())
    return tuple(sorted(path for path in found if split_names(path.name)[0] == path.name))
