"""Lock files in pip's format: which entries count on which platform, and how such a file is written. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ENTRY = re.compile(r"^(?P<requirement>[A-Za-z0-9][\w.-]*==[^\\\n#]+)(?P<hashes>(?:\\\n[^\\\n]*)*)", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One version of one package, and the files that may be it: `sha256:...`. `name` is in its normal form."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def lines(self) -> str:
        """As pip reads it."""
        return (
            " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash={digest}" for digest in self.hashes)]) + "\n"
        )


def pins_for(lock: str, markers: Mapping[str, str]) -> tuple[Pin, ...]:
    """The entries of `lock` that count where environment markers have those values, ordered by name."""
    return tuple(sorted(_pins(lock, markers), key=lambda pin: pin.name))


def as_lock(pins: Iterable[Pin], header: str = "") -> str:
    """A lock file of those pins."""
    return header + "".join(pin.lines for pin in pins)


def _pins(lock: str, markers: Mapping[str, str]) -> Iterable[Pin]:
    for entry in _ENTRY.finditer(lock):
        requirement = Requirement(entry["requirement"].strip())
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            (pinned,) = requirement.specifier
            yield Pin(canonicalize_name(requirement.name), pinned.version, tuple(_HASH.findall(entry["hashes"])))
