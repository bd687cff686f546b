"""Wheels made of what is installed here: of a distribution by its RECORD, or of the sources of an editable one. Blocks.

The same content gives the same bytes, on every machine: sorted, without times, rights or compression of its own. So the
SHA-256 of a wheel tells whether two machines run the same code.
"""

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from rbee_shared.errors import InstallFailedError
from rbee_shared.version import __version__

PACKAGES = ("llm_worker_rbee", "queen_rbee", "rbee_hive", "rbee_keeper", "rbee_shared")
_REPAIR = "Install it again here: scripts/setup, or pip install --force-reinstall."
_NOT_CARRIED = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "WHEEL"})
_LICENSES = ".dist-info/licenses/"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_MODE, _MODE_EXECUTABLE = 0o100644 << 16, 0o100755 << 16
_VERSION_LINE = re.compile(r"^Version: .*$", re.MULTILINE)
_INTERPRETER = re.compile(rb"^#!.*python.*\n")


@dataclass(frozen=True)
class Wheel:
    """A wheel in memory. `name`: of the file."""

    name: str
    content: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def read(self, path: str) -> str:
        """The text of one file in it."""
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            return archive.read(path).decode()


def own_wheel() -> Wheel:
    """Of this rbee, installed or editable: the same sources give the same wheel either way.

    Raises:
        InstallFailedError: it runs from neither.
    """
    found = _distribution("rbee")
    installed = _installed_parts(found)
    parts = installed if f"{PACKAGES[0]}/__init__.py" in installed else _own_sources(found)
    info = f"rbee-{__version__}.dist-info"
    metadata = found.read_text("METADATA") or ""
    # the description is a page for people: when it changes, no code has
    headers = _VERSION_LINE.sub(f"Version: {__version__}", metadata.partition("\n\n")[0])
    code = {name: content for name, content in parts.items() if PurePosixPath(name).parts[0] in PACKAGES}
    about = {f"{info}/licenses/{Path(name).name}": content for name, content in installed.items() if _LICENSES in name}
    about[f"{info}/entry_points.txt"] = (found.read_text("entry_points.txt") or "").encode()
    about[f"{info}/METADATA"] = headers.encode()
    return packed(f"rbee-{__version__}", ["py3-none-any"], {**code, **about})


def repacked(name: str, version: str | None = None, *, compress: bool = True) -> Wheel:
    """Of the distribution `name` that is installed here, compiled parts included.

    Raises:
        InstallFailedError: it is not here, in another version than `version`, or not complete.
    """
    found = _distribution(name)
    if version is not None and found.version != version:
        raise InstallFailedError(f"{name} {version} is wanted, and {found.version} is installed here", hint=_REPAIR)
    parts = _installed_parts(found)
    info = next((path.split("/")[0] for path in parts if path.endswith(".dist-info/METADATA")), None)
    if info is None:
        raise InstallFailedError(f"{name} is not installed here as a wheel is", hint=_REPAIR)
    lines = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag:").strip() for line in lines if line.startswith("Tag:")]
    return packed(
        info.removesuffix(".dist-info"), tags, parts, compress=compress, pure="Root-Is-Purelib: true" in lines
    )


def packed(
    stem: str, tags: Iterable[str], parts: Mapping[str, bytes], *, compress: bool = False, pure: bool = True
) -> Wheel:
    """A wheel of those files. `stem`: `name-version`, as its `.dist-info` begins."""
    tags = sorted(set(tags))
    info = f"{stem}.dist-info"
    about = ["Wheel-Version: 1.0", "Generator: rbee", f"Root-Is-Purelib: {str(pure).lower()}"]
    about += [f"Tag: {tag}" for tag in tags]
    whole = {**parts, f"{info}/WHEEL": "".join(f"{line}\n" for line in about).encode()}
    record = "".join(f"{path},{_record_hash(content)},{len(content)}\n" for path, content in sorted(whole.items()))
    whole[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    compression = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, content in sorted(whole.items(), key=lambda part: (".dist-info/" in part[0], part[0])):
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = _MODE_EXECUTABLE if ".data/scripts/" in path else _MODE
            entry.compress_type = compression
            archive.writestr(entry, content)
    return Wheel(f"{stem}-{_compressed(tags)}.whl", buffer.getvalue())


def _compressed(tags: Iterable[str]) -> str:
    """`cp311-cp311-manylinux1_x86_64.manylinux2014_x86_64` for several tags."""
    columns = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(column))) for column in columns)


def _record_hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise InstallFailedError(f"{name} is not installed here", hint=_REPAIR) from None


def _installed_parts(found: Distribution) -> dict[str, bytes]:
    parts = {}
    scripts = {entry.name for entry in found.entry_points if entry.group in {"console_scripts", "gui_scripts"}}
    stem = next((file.parts[0].removesuffix(".dist-info") for file in found.files or () if file.name == "METADATA"), "")
    for file in found.files or ():
        place = _place(PurePosixPath(file), stem, scripts)
        if place is not None:
            content = _read(found, Path(str(found.locate_file(file))))
            parts[place] = _INTERPRETER.sub(b"#!python\n", content) if ".data/scripts/" in place else content
    return parts


def _place(file: PurePosixPath, stem: str, scripts: set[str]) -> str | None:
    """Where an installed file belongs in a wheel; None: pip makes it. Outside of the packages: scripts and data."""
    if file.suffix == ".pyc" or (file.parts[0] == f"{stem}.dist-info" and file.name in _NOT_CARRIED):
        return None
    if file.parts[0] != "..":
        return str(file)
    outside = [part for part in file.parts if part != ".."]
    if outside[0] == "bin":
        is_launcher = file.name in scripts or file.name.rstrip("0123456789.-") in scripts  # pip3.11
        return None if is_launcher else f"{stem}.data/scripts/{file.name}"
    return f"{stem}.data/data/{'/'.join(outside)}"


def _own_sources(found: Distribution) -> dict[str, bytes]:
    parts = {}
    for package in PACKAGES:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(root).rglob("*")):
                below = path.relative_to(Path(root))
                if path.is_file() and not _is_by_product(below):
                    parts[f"{package}/{below.as_posix()}"] = _read(found, path)
    return parts


def _is_by_product(path: Path) -> bool:
    """What tools and editors leave beside sources."""
    return path.suffix == ".pyc" or any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _read(found: Distribution, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        name = found.metadata["Name"]
        raise InstallFailedError(f"{name} is not complete here: {path}: {error.strerror}", hint=_REPAIR) from None
