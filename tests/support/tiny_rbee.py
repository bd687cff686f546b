"""A stand-in for rbee and its libraries that installs in seconds: real wheels, a `rbee-hive` that says its version."""

import hashlib
from pathlib import Path

from queen_rbee.domain.nodes.locks import Pin, as_lock
from queen_rbee.nodes.here import OwnRbee, this_cpu, this_platform
from queen_rbee.nodes.wheelhouse import Wheelhouse
from queen_rbee.nodes.wheels import Wheel, packed

TAG, CPU = this_platform(), this_cpu()
_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def library(name: str, version: str = "1.0", *, tag: str = "py3-none-any", more: bytes = b"") -> Wheel:
    """A package of one module."""
    parts = {
        f"{name}.py": b"VALUE = 1\n" + more,
        f"{name}-{version}.dist-info/METADATA": _METADATA.format(name=name, version=version).encode(),
    }
    return packed(f"{name}-{version}", [tag], parts)


def tiny_rbee(version: str = "1.0", *, hive: str = "", lock: str = "") -> OwnRbee:
    """`hive`: Python text that its `rbee-hive` runs before it says its version."""
    info = f"rbee-{version}.dist-info"
    said = f"import sys\n{hive}\nprint('rbee-hive {version}')\n"
    parts = {
        "rbee_shared/__init__.py": b"",
        "rbee_shared/version.py": f"__version__ = {version!r}\n".encode(),
        "rbee_hive.py": f"def main():\n{''.join(f'    {line}' + chr(10) for line in said.splitlines())}".encode(),
        f"{info}/METADATA": _METADATA.format(name="rbee", version=version).encode(),
        f"{info}/entry_points.txt": b"[console_scripts]\nrbee-hive = rbee_hive:main\n",
    }
    return OwnRbee(
        version=version,
        wheel=packed(f"rbee-{version}", ["py3-none-any"], parts),
        lock=lock,
        engine_lock="",
        tag=TAG,
        cpu=CPU,
        engine=None,
    )


def tiny_wheelhouse(directory: Path, *libraries: Wheel) -> Wheelhouse:
    """Those libraries, locked by their hashes."""
    directory.mkdir(parents=True, exist_ok=True)
    pins = []
    for wheel in libraries:
        (directory / wheel.name).write_bytes(wheel.content)
        name, version = wheel.name.split("-")[:2]
        pins.append(Pin(name, version, (f"sha256:{hashlib.sha256(wheel.content).hexdigest()}",)))
    files, size_bytes = (directory / wheel.name for wheel in libraries), sum(len(wheel.content) for wheel in libraries)
    return Wheelhouse(directory, tuple(files), as_lock(pins), size_bytes)
