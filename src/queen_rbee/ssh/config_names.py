"""The machines that `~/.ssh/config` names: each may be used as a node without being added first.

Blocking: call it in a thread. asyncssh reads the file for a connection, but does not say whom it names.
"""

import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"^\s*(host|include)(?:\s*=\s*|\s+)(.+?)\s*$", re.IGNORECASE)
_WILD = frozenset("*?!")
_DEEPEST_INCLUDE = 16


def names_a_host(name: str, config: Path) -> bool:
    """Whether a `Host` line of that file, or of one that it includes, gives this very name (no pattern does)."""
    return name in _hosts(config, config.parent, _DEEPEST_INCLUDE)


def _hosts(file: Path, ssh_directory: Path, depth: int) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for match in filter(None, map(_LINE.match, lines)):
        words = [word.strip('"') for word in match[2].split()]
        if match[1].lower() == "host":
            yield from (word for word in words if not _WILD.intersection(word))
        elif depth:
            for word in words:
                for included in _included(word, ssh_directory):
                    yield from _hosts(included, ssh_directory, depth - 1)


def _included(pattern: str, ssh_directory: Path) -> Iterator[Path]:
    path = Path(pattern).expanduser()
    absolute = path if path.is_absolute() else ssh_directory / path
    try:
        yield from sorted(Path(absolute.anchor).glob(str(absolute.relative_to(absolute.anchor))))
    except (ValueError, NotImplementedError, OSError):  # a pattern that no file can have
        return
