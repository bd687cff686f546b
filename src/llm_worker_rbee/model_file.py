"""The model's file, and what tells it from every other file."""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class ModelFile:
    """`sha256` may be called from any thread; the file is read once, when somebody first asks."""

    path: Path
    _known: str | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def sha256(self) -> str:
        """Hexadecimal. Blocking: about a second for each GB.

        Raises:
            OSError: the file is gone.
        """
        with self._reading:
            if self._known is None:
                with self.path.open("rb") as file:
                    self._known = hashlib.file_digest(file, "sha256").hexdigest()
            return self._known
