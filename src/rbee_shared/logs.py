"""Log files of the daemons: one per program, rotated, secrets redacted."""

import logging
import logging.handlers
import sys
from pathlib import Path

from typing_extensions import override

from rbee_shared.redaction import redact

_MAX_BYTES = 5_000_000
_KEPT_FILES = 3
_PRIVATE_FILE = 0o600


class _Redacting(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def log_to_file(path: Path) -> None:
    """Send every log line of this process to `path`, which is rotated at 5 MB, three old ones kept."""
    path.touch(_PRIVATE_FILE)
    _install(logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_KEPT_FILES, encoding="utf-8"))


def log_to_stderr() -> None:
    """Send every log line of this process to standard error: its parent keeps that in a file."""
    _install(logging.StreamHandler(sys.stderr))


def _install(handler: logging.Handler) -> None:
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(process)d %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("httpx2", "httpcore", "httpcore2", "asyncio", "asyncssh", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
