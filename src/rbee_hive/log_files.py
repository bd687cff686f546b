"""The log files of a home, for people: which there are, and how each ends. Blocking: call it in a thread."""

import os
from collections import deque
from pathlib import Path

from rbee_shared.errors import NotFoundError
from rbee_shared.redaction import printable, redact

_MOST_BYTES = 4 * 1024 * 1024


def tail(directory: Path, name: str | None, lines: int) -> str:
    """The last `lines` lines of the file `name`, secrets redacted; the names of all files where `name` is None.

    Raises:
        NotFoundError: there is no such file.
    """
    names = sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    if name is None:
        return "".join(f"{each}\n" for each in names)
    if name not in names:  # this also keeps every path that leads elsewhere out
        raise NotFoundError(f"there is no log file {name!r}", hint="GET /v1/logs without a name lists them.")
    with (directory / name).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_BYTES))
        last = deque(file.read().decode(errors="replace").splitlines(), maxlen=lines)
    return "".join(f"{redact(printable(line))}\n" for line in last)
