"""Which files may become models, and what their rows are called. Paths are compared as text: resolve them first."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from rbee_shared.errors import ForbiddenError, ModelInvalidError

GGUF_MAGIC = b"GGUF"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_STEM = 100


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
    stem = _UNSAFE.sub("-", path.stem).strip("-.")[:_MAX_STEM] or "model"
    candidate, number = stem, 1
    while candidate in taken:
        number += 1
        candidate = f"{stem}-{number}"
    return candidate
