"""The model's file, and what tells it from every other file."""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from rbee_shared.errors import ModelMismatchError


@dataclass
class ModelFile:
    """Made before the file is loaded. `sha256`, from any thread, reads the file when it is first asked."""

    path: Path
    _seen: tuple[int, ...] = ()
    _known: str | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._seen = self._look()

    def sha256(self) -> str:
        """Hexadecimal, of what was loaded. Blocking: about a second for each GB.

        Raises:
            ModelMismatchError: the file was changed since, or is gone.
        """
        with self._reading:
            if self._known is None:
                digest = self._read()
                if not self._seen or self._look() != self._seen:
                    raise ModelMismatchError(f"{self.path} is no longer the file that was loaded")
                self._known = digest
            return self._known

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def _look(self) -> tuple[int, ...]:
        try:
            stat = self.path.stat()
        except OSError:
            return ()
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
