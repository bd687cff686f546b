"""Which files may become models, what they are called, whether they are still the same. Paths: resolve them first."""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from rbee_hive.domain.models.quant_names import split_part
from rbee_shared.errors import ForbiddenError, ModelInvalidError

GGUF_MAGIC = b"GGUF"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_STEM = 100
_MOST_PARTS = 1000


class FileState(StrEnum):
    """What a look at a file tells without reading it. `touched`: the right size, another time."""

    SAME = "same"
    TOUCHED = "touched"
    CHANGED = "changed"
    GONE = "gone"


def compare(size_bytes: int, modified_ns: int | None, found: tuple[int, int] | None) -> FileState:
    """What the catalog noted of a file, and its size and mtime (ns) now; None where there is none."""
    if found is None:
        return FileState.GONE
    if found[0] != size_bytes:
        return FileState.CHANGED
    return FileState.SAME if modified_ns == found[1] else FileState.TOUCHED


def split_names(name: str) -> tuple[str, ...]:
    """The file names of all parts of a split GGUF, in order; of any other file its own name alone."""
    part = split_part(name)
    if part is None or not 1 <= part.number <= part.count <= _MOST_PARTS:
        return (name,)
    ending = name[len(part.stem) + len("-00001-of-00001") :]
    return tuple(f"{part.stem}-{number:05d}-of-{part.count:05d}{ending}" for number in range(1, part.count + 1))


def combined_sha256(hashes: Sequence[str | None]) -> str | None:
    """One hash for a model: its file's, or over its parts' in order; None as long as one is unknown."""
    known = [part for part in hashes if part is not None]
    if not known or len(known) != len(hashes):
        return None
    return known[0] if len(known) == 1 else hashlib.sha256("\n".join(known).encode()).hexdigest()


def require_allowed(path: Path, roots: Iterable[Path]) -> None:
    """Raise `ForbiddenError` unless `path` lies under one of `roots`."""
    allowed = tuple(roots)
    if not any(path.is_relative_to(root) for root in allowed):
        raise ForbiddenError(
            f"{path} is outside the directories that this hive reads models from: {', '.join(map(str, allowed))}",
            hint="Move it there, or add its directory to `model_roots` under [hive] in config.toml.",
        )


def require_gguf(path: str, size_bytes: int, first_bytes: bytes) -> None:
    """Raise `ModelInvalidError` if this cannot be a GGUF file."""
    if size_bytes == 0:
        raise ModelInvalidError(f"{path} is empty")
    if first_bytes != GGUF_MAGIC:
        raise ModelInvalidError(f"{path} is no GGUF file: it begins with {first_bytes!r}, not with {GGUF_MAGIC!r}")


def unique_id(path: Path, taken: Collection[str]) -> str:
    """The file's stem, made safe for URLs, with a number behind it if that is taken: `tinyllama`, `tinyllama-2`."""
    part = split_part(path.name)
    stem = _UNSAFE.sub("-", part.stem if part else path.stem).strip("-._")[:_MAX_STEM] or "model"
    candidate, number = stem, 1
    while candidate in taken:
        number += 1
        candidate = f"{stem}-{number}"
    return candidate
