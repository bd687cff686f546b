"""Engines to make worker builds of: wheels real, broken and hostile, and a source tree that real pip "compiles".

The real one is packed from the llama-cpp-python that is installed here. The source tree has a build backend of its own
(PEP 517), so that pip does everything it does, and what happens at its compiling is up to the test.
"""

import importlib.metadata
import re
import textwrap
import zipfile
from pathlib import Path

VERSION = importlib.metadata.version("llama-cpp-python")
WHEEL_NAME = f"llama_cpp_python-{VERSION}-py3-none-any.whl"
_DIST_INFO = f"llama_cpp_python-{VERSION}.dist-info"
_METADATA = f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {VERSION}\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
_WORKERS_LOAD = re.compile(
    r"llama_cpp/(?:(?:__init__|llama_cpp|_ggml|_ctypes_extensions)\.py|lib/lib(?:llama|ggml)[a-z-]*\.(?:so|so\.\d+|dylib))"
)

_BACKEND = """
import os, pathlib, shutil, subprocess, sys, time

def say(line):
    print(line, flush=True)

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory) / {info!r}
    info.mkdir()
    (info / "METADATA").write_text({metadata!r})
    (info / "WHEEL").write_text({wheel!r})
    return info.name

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with open({runs!r}, "a") as runs:
        runs.write(os.environ.get("CMAKE_ARGS", "") + "\\n")
{work}
    shutil.copy({result!r}, directory)
    return os.path.basename({result!r})
"""


def real_wheel(directory: Path) -> Path:
    """The installed llama-cpp-python as a wheel again, without what no worker loads: that would take pip seconds."""
    installed = [
        file for file in importlib.metadata.files("llama-cpp-python") or () if _WORKERS_LOAD.fullmatch(str(file))
    ]
    return _pack(directory, {str(file): Path(str(file.locate())).read_bytes() for file in installed})


def altered_wheel(directory: Path, library: bytes) -> Path:
    """The real one with another `libllama.so`."""
    wheel = real_wheel(directory)
    with zipfile.ZipFile(wheel) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    libraries = {name: library for name in parts if "libllama." in name}
    assert libraries
    return _pack(directory, parts | libraries)


def fake_wheel(directory: Path, bindings: str, **more: bytes) -> Path:
    """A wheel whose bindings are the Python text `bindings`; `more`: other files of the package."""
    parts = {f"llama_cpp/{name}": content for name, content in more.items()}
    return _pack(directory, {"llama_cpp/__init__.py": b"", "llama_cpp/llama_cpp.py": bindings.encode(), **parts})


def other_wheel(directory: Path, name: str) -> Path:
    """A wheel of another package, version 1.0, with one module of its name."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}.py", "")
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", _WHEEL)
        packed.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def source_tree(directory: Path, result: Path, work: str) -> str:
    """A requirement that pip compiles by running the Python text `work`; what comes out is the wheel `result`.

    Each run adds a line to `directory/runs`.
    """
    directory.mkdir(parents=True)
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (directory / "backend.py").write_text(
        _BACKEND.format(
            info=_DIST_INFO,
            metadata=_METADATA,
            wheel=_WHEEL,
            runs=str(directory / "runs"),
            work=textwrap.indent(textwrap.dedent(work), "    "),
            result=str(result),
        )
    )
    return f"llama-cpp-python @ file://{directory}\n"


def runs(directory: Path) -> list[str]:
    """The `CMAKE_ARGS` of each time that source tree was compiled."""
    path = directory / "runs"
    return path.read_text().splitlines() if path.exists() else []


def _pack(directory: Path, parts: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / WHEEL_NAME
    parts = {
        **parts,
        f"{_DIST_INFO}/METADATA": _METADATA.encode(),
        f"{_DIST_INFO}/WHEEL": _WHEEL.encode(),
    }
    record = "".join(f"{name},,\n" for name in [*parts, f"{_DIST_INFO}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in {**parts, f"{_DIST_INFO}/RECORD": record.encode()}.items():
            packed.writestr(name, content)
    return path
