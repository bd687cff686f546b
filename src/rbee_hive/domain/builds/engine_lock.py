"""The versions that a worker build is made of, read from a lock file in pip's format. Pure.

An entry is `name==version`, perhaps with a marker, its hashes on the lines that follow; a name may have one entry for
each marker. What is taken from it is handed to pip word for word, so that pip checks the hashes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ENGINE = "llama-cpp-python"
NEEDS = ("jinja2", "llguidance", "markupsafe", "numpy")
"""What a worker imports beside the engine; the package of the hive itself does not depend on it."""
TOOLS = ("cmake", "ninja", "packaging", "pathspec", "scikit-build-core")
"""What compiling the engine needs; with these `pip wheel` runs without fetching versions of its own choice."""

_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)(?:.*\\\n)*.*", re.MULTILINE)


@dataclass(frozen=True)
class EngineLock:
    """What pip is given. `needs`: requirement lines by name, with the versions that they allow."""

    version: str
    engine: str
    tools: str
    needs: Mapping[str, "Locked"]

    def needed_beside(self, installed: Mapping[str, str]) -> str:
        """Requirement lines for what an environment with those packages lacks; empty when it lacks nothing."""
        lacking = (locked for name, locked in self.needs.items() if installed.get(name) not in locked.versions)
        return "".join(locked.lines for locked in lacking)


@dataclass(frozen=True)
class Locked:
    """The entries of one name."""

    versions: frozenset[str]
    lines: str


def read_lock(text: str) -> EngineLock:
    """Read a lock file that has every one of `ENGINE`, `NEEDS` and `TOOLS`; a missing one is a defect of this rbee."""
    (version,) = locked(text, ENGINE).versions
    return EngineLock(
        version=version,
        engine=locked(text, ENGINE).lines,
        tools="".join(locked(text, name).lines for name in TOOLS),
        needs={name: locked(text, name) for name in NEEDS},
    )


def locked(text: str, name: str) -> Locked:
    """All entries of `name`.

    Raises:
        ValueError: there is none.
    """
    entries = [entry for entry in _ENTRY.finditer(text) if entry["name"].lower() == name]
    if not entries:
        raise ValueError(f"{name} is not locked")
    return Locked(frozenset(entry["version"] for entry in entries), _joined(entry.group() for entry in entries))


def _joined(entries: Iterable[str]) -> str:
    return "".join(f"{entry}\n" for entry in entries)
