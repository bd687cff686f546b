"""What the output of a build step means: how far the compiler is, and why a step failed. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NINJA = re.compile(r"^\s*\[(\d{1,6})/(\d{1,6})\]\s")


@dataclass(frozen=True)
class Compiled:
    """Files compiled so far, of all."""

    done: int = 0
    total: int = 0

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 0


def advanced(before: Compiled, lines: Iterable[str]) -> Compiled:
    """How far it is after those lines. Never backwards: cmake's own trials count to two and start again."""
    for line in lines:
        match = _NINJA.match(line)
        if match is None:
            continue
        now = Compiled(int(match[1]), int(match[2]))
        if now.done <= now.total and (now.total, now.done) > (before.total, before.done):
            before = now
    return before


@dataclass(frozen=True)
class Cause:
    """Why a step failed, as far as its output tells, and what to do. `is_disk`: no room was left."""

    why: str
    hint: str | None = None
    is_disk: bool = False


_PIP_SUMS_UP = "error: subprocess-exited-with-error"
_COMPLAINT = re.compile(r"CMake Error|\berror:|\b[A-Z]\w+Error\b|^ERROR: |FAILED:|No such file or directory")
_DISK = "No space left on device|Disk quota exceeded|Errno 28|Errno 122"
_NETWORK = (
    r"name resolution|Name or service not known|nodename nor servname|establish a new connection|Network is unreachable"
    r"|Connection refused|[Rr]ead timed out|ConnectTimeout|ProxyError|Connection reset|Connection broken"
)
_CAUSES: tuple[tuple[str, Cause], ...] = (
    (_DISK, Cause("the disk is full", is_disk=True)),
    (
        r"Killed signal|signal 9|bad_alloc|virtual memory exhausted|Cannot allocate memory",
        Cause("memory ran out", "Compile with fewer jobs at once: set `build_jobs = 1` under [hive] in config.toml."),
    ),
    (
        r"DO NOT MATCH THE HASHES",
        Cause(
            "a package is not the one that was locked",
            "Something on the way serves other files: check the package index and the proxy.",
        ),
    ),
    (
        _NETWORK,
        Cause(
            "the Python package index cannot be reached",
            "Check the network and the proxy settings, or put wheels into `wheels_dir`.",
        ),
    ),
    (
        r"No matching distribution found",
        Cause(
            "the Python package index does not have a package that is needed",
            "Check the index that pip uses, or put the wheel into `wheels_dir`.",
        ),
    ),
    (
        r"is not a supported wheel on this platform",
        Cause("the wheel was made for another Python or platform", "Replace it by one that was made for this machine."),
    ),
    (r"Invalid wheel filename|BadZipFile|[Ww]heel .* is invalid", Cause("the wheel is damaged", "Replace it.")),
    (
        r"unsupported (?:GNU|clang) version",
        Cause(
            "this CUDA toolkit does not take this C++ compiler",
            "Install an older g++ beside it and name it: NVCC_CCBIN=g++-12 in the hive's environment.",
        ),
    ),
    (
        r"CUDA::\w+\s+but the target was not found",
        Cause(
            "a part of the CUDA toolkit is missing",
            "Install all of it. Debian, Ubuntu: apt-get install nvidia-cuda-toolkit; elsewhere NVIDIA's cuda-toolkit.",
        ),
    ),
    (r"No CMAKE_CUDA_COMPILER|CUDA Toolkit not found|Failed to find nvcc", Cause("the CUDA toolkit does not work")),
    (
        r"No CMAKE_C(?:XX)?_COMPILER|is not able to compile a simple test program",
        Cause("the C++ compiler does not work"),
    ),
)


def own_words(lines: Sequence[str]) -> Sequence[str]:
    """The lines without pip's summary behind them, which says that something failed and not what."""
    cuts = [number for number, line in enumerate(lines) if line.strip() == _PIP_SUMS_UP]
    return lines[: cuts[0]] if cuts and cuts[0] else lines


def complaint(lines: Sequence[str]) -> str:
    """The last line that reads like an error, else the last line."""
    words = [line.strip() for line in own_words(lines) if line.strip()]
    complaints = [line for line in words if _COMPLAINT.search(line)]
    return [*words[-1:], *complaints][-1] if words else "it said nothing"


def why_failed(lines: Sequence[str]) -> Cause | None:
    """The cause that the output names, the most telling first; None if it names none we know."""
    output = "\n".join(lines)
    return next((cause for pattern, cause in _CAUSES if re.search(pattern, output)), None)
