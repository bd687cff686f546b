"""Looks at what this machine has for making worker builds: tools, cores, memory, room on disk. Blocks."""

import importlib.util
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rbee_hive.domain.builds.build_plan import Target, jobs_at_once
from rbee_hive.domain.builds.build_tools import Cuda, Tools
from rbee_shared.contracts.provisions import BuildKind
from rbee_shared.errors import DiskFullError
from rbee_shared.machine_limits import logical_cores, memory, quota_cores
from rbee_shared.units import format_bytes

_ANSWERS_S = 10.0
_COMPILERS = ("c++", "g++", "clang++")
_CUDA_HOMES = ("CUDA_HOME", "CUDA_PATH")
_CUDA_DEFAULT = "/usr/local/cuda"
_CARDS, _CARD_OF_WSL = "nvidia[0-9]*", "/dev/dxg"
_INCLUDE_DIRECTORIES = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")


def this_target(version: str) -> Target:
    """What builds made here are for."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return Target(version, python, f"{platform.system()}-{platform.machine()}".lower())


def find_tools(environ: Mapping[str, str]) -> Tools:
    """What there is to compile with."""
    return Tools(
        system=platform.system().lower(),
        pip=has_pip(),
        compiler=_has_compiler(environ),
        cuda=_cuda(environ),
        glslc=_which("glslc", environ) is not None,
        vulkan_headers=_has_vulkan_headers(environ),
    )


def has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def jobs_here(kind: BuildKind) -> int:
    """Compilers that this machine can run side by side."""
    cores = logical_cores()
    return jobs_at_once(kind, min(cores, quota_cores() or cores), memory().total_bytes)


def require_room(directory: Path, needed_bytes: int) -> None:
    """Raise `DiskFullError` unless `directory` has that much room."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise DiskFullError(
            f"a worker build takes {format_bytes(needed_bytes)} for a while, and {directory} has "
            f"{format_bytes(free_bytes)} free",
            details={"needed_bytes": needed_bytes, "free_bytes": free_bytes},
        )


def _has_compiler(environ: Mapping[str, str]) -> bool:
    """A program on PATH is not enough: macOS has one that only says how to get a compiler."""
    named = environ.get("CXX", "").split()
    candidates = named[:1] or _COMPILERS
    until_s = time.monotonic() + _ANSWERS_S  # for all of them together
    return any(_answers(path, until_s) for name in candidates if (path := _which(name, environ)) is not None)


def _answers(program: str, until_s: float) -> bool:
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run(  # noqa: S603 - a compiler that the operator has on PATH or has named
            [program, "--version"], stdin=quiet, stdout=quiet, stderr=quiet, check=False,
            timeout=max(0.0, until_s - time.monotonic()),
        ).returncode == 0  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False


def _cuda(environ: Mapping[str, str]) -> Cuda | None:
    nvcc = _nvcc(environ)
    return Cuda(nvcc, sees_card=any(Path("/dev").glob(_CARDS)) or Path(_CARD_OF_WSL).exists()) if nvcc else None


def _nvcc(environ: Mapping[str, str]) -> str | None:
    named = environ.get("CUDACXX")
    if named:
        return _which(named, environ)
    homes = [environ[name] for name in _CUDA_HOMES if environ.get(name)]
    on_path = _which("nvcc", environ)
    return on_path or next(
        (found for home in [*homes, _CUDA_DEFAULT] if (found := _which(f"{home}/bin/nvcc", environ))), None
    )


def _has_vulkan_headers(environ: Mapping[str, str]) -> bool:
    sdk = environ.get("VULKAN_SDK")
    roots = [f"{sdk}/include", *_INCLUDE_DIRECTORIES] if sdk else _INCLUDE_DIRECTORIES
    return any((Path(root) / "vulkan" / "vulkan.h").is_file() for root in roots)


def _which(name: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=environ.get("PATH", ""))
