"""Model files on disk: what may be read, and whether it looks like GGUF. Blocking work is done in threads."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import anyio.to_thread

from rbee_hive.domain.file_rules import GGUF_MAGIC, require_allowed, require_gguf
from rbee_shared.errors import InvalidRequestError, ModelInvalidError, ModelNotFoundError


@dataclass(frozen=True)
class ModelFile:
    """A file that begins like GGUF."""

    path: Path
    size_bytes: int


def embedded_model() -> Path:
    """Where the storyteller lies that ships with the package."""
    return Path(str(files("rbee_shared").joinpath("assets", "storyteller.gguf")))


async def inspect(path: str, *, roots: Iterable[Path] | None) -> ModelFile:
    """The model file at `path`, links followed; `roots` None allows any place.

    Raises:
        InvalidRequestError: the path is not absolute.
        ForbiddenError: it is outside `roots`.
        ModelNotFoundError: it is not there, or may not be read.
        ModelInvalidError: it is no GGUF file.
    """
    allowed = None if roots is None else tuple(roots)
    return await anyio.to_thread.run_sync(_inspect, path, allowed)


def _inspect(text: str, roots: tuple[Path, ...] | None) -> ModelFile:
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequestError(f"{text!r} is no absolute path")
    path = Path(text).resolve()
    if roots is not None:
        require_allowed(path, (root.expanduser().resolve() for root in roots))
    if not path.exists():
        raise ModelNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ModelInvalidError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            head = file.read(len(GGUF_MAGIC))
        size_bytes = path.stat().st_size
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error.strerror}") from None
    require_gguf(str(path), size_bytes, head)
    return ModelFile(path, size_bytes)
