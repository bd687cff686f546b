"""Worker builds, decided: what one is called, whether it may be used here, how it is compiled, how much room it takes.

Pure. A build is usable only by the Python, on the platform and with the version of llama-cpp-python it was made for.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from rbee_hive.domain.builds.build_tools import Cuda
from rbee_shared.contracts.provisions import BuildKind, BuildRow
from rbee_shared.errors import InvalidRequestError

KINDS: tuple[BuildKind, ...] = get_args(BuildKind)
BUILTIN = "builtin"
_MIB = 1024**2
_ROOM_BYTES: dict[BuildKind, int] = {
    "cpu": 1024 * _MIB, "metal": 1024 * _MIB, "vulkan": 2048 * _MIB, "cuda": 6144 * _MIB,
}  # fmt: skip
_ROOM_BESIDE_WHEEL_BYTES = 256 * _MIB
_WHEEL_GROWS = 4  # the wheel itself lies elsewhere; unpacked it is larger, and pip holds it twice for a moment
_COMPILER_BYTES: dict[BuildKind, int] = {
    "cpu": 1536 * _MIB, "metal": 1536 * _MIB, "vulkan": 1536 * _MIB, "cuda": 3072 * _MIB,
}  # fmt: skip
_OPTIONS: dict[BuildKind, str] = {
    "cpu": "", "cuda": "-DGGML_CUDA=on", "metal": "-DGGML_METAL=on", "vulkan": "-DGGML_VULKAN=on",
}  # fmt: skip
_FOR_ALL = "-DLLAVA_BUILD=OFF"  # images: a fifth of the work, and no worker reads them
_FOR_ANY_CARD = "-DGGML_NATIVE=off"  # else "native" cards are asked for, and there are none
# would lead pip, Python or the bindings elsewhere, or away from the versions that are locked
_MISLEADING = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES",
     "PIP_NO_DEPS", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "LLAMA_CPP_LIB_PATH"}
)  # fmt: skip
# others' build scripts run in that environment
_OURS = ("RBEE_", "HF_", "HUGGING_FACE_")
_SECRET = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|(?:^|_)(?:KEYS?|PASS|PAT)(?:_|$)", re.IGNORECASE
)
_QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off", "PYTHONUNBUFFERED": "1"}
_PROBE_KEEPS = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES", "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "RBEE_HOME",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What a build is made for. `version`: of llama-cpp-python; `python`: `cp311`; `platform`: `linux-x86_64`."""

    version: str
    python: str
    platform: str


def require_kind(kind: str) -> BuildKind:
    """`kind`, if builds of it exist.

    Raises:
        InvalidRequestError: they do not.
    """
    for known in KINDS:
        if kind == known:
            return known
    raise InvalidRequestError(
        f"there is no worker build of kind {kind[:64]!r}", hint=f"Choose one of {', '.join(KINDS)}."
    )


def build_id(kind: BuildKind, version: str) -> str:
    """Of a build that was made here; its directory is called the same."""
    return f"{kind}-{version}"


def builtin_id(kind: BuildKind) -> str:
    """Of the hive's own environment, which can be a build of several kinds."""
    return f"{kind}-{BUILTIN}"


def wheel_directory(kind: BuildKind, target: Target) -> str:
    """The directory under `wheels_dir` that holds the engine's wheel: `cuda-0.3.36-cp311-linux-x86_64`.

    The wheel in it keeps its own name, which pip insists on and which does not tell the kind.
    """
    return f"{kind}-{target.version}-{target.python}-{target.platform}"


def is_usable(row: BuildRow, target: Target) -> bool:
    """Whether a worker can run with it here. pip has matched the environment's version with ours; others must equal."""
    is_right_version = row.source == "environment" or row.version == target.version
    return is_right_version and (row.python, row.platform) == (target.python, target.platform)


def choose(rows: Iterable[BuildRow], kind: BuildKind, target: Target) -> BuildRow | None:
    """The build for a worker of that kind: one that was made for it before the environment's."""
    usable = [row for row in rows if row.kind == kind and is_usable(row, target)]
    return min(usable, key=lambda row: (row.source == "environment", row.id), default=None)


def jobs_at_once(kind: BuildKind, cores: float, memory_bytes: int) -> int:
    """Compilers that may run side by side: one per core, fewer where memory is short."""
    return max(1, min(int(cores), memory_bytes // _COMPILER_BYTES[kind]))


def room_bytes(kind: BuildKind, wheel_bytes: int | None) -> int:
    """Bytes on disk that making a build takes at its peak; `wheel_bytes` None: it has to be compiled."""
    if wheel_bytes is None:
        return _ROOM_BYTES[kind]
    return wheel_bytes * _WHEEL_GROWS + _ROOM_BESIDE_WHEEL_BYTES


def step_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For pip and what it starts: ours, less what misleads it, and less what is secret by its name."""
    return {name: value for name, value in environ.items() if not _is_withheld(name)} | _QUIET


def compile_environment(
    kind: BuildKind, environ: Mapping[str, str], *, jobs: int, tools: str, cuda: Cuda | None
) -> dict[str, str]:
    """For compiling llama.cpp. `tools`: the directory with the locked build tools; the operator's own options stay."""
    env = step_environment(environ)
    for_any_card = _FOR_ANY_CARD if kind == "cuda" and cuda is not None and not cuda.sees_card else ""
    options = (_FOR_ALL, _OPTIONS[kind], for_any_card, environ.get("CMAKE_ARGS", ""))  # the last one counts
    env |= {
        "CMAKE_ARGS": " ".join(option for option in options if option),
        "CMAKE_BUILD_PARALLEL_LEVEL": environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(jobs)),
        "PATH": f"{tools}/bin:{environ.get('PATH', '')}",
        "PYTHONPATH": tools,
    }
    if kind == "cuda" and cuda is not None:
        env["CUDACXX"] = cuda.nvcc
    return env


def probe_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For a look into a build: only what leads to the devices and their libraries."""
    return {name: environ[name] for name in _PROBE_KEEPS if name in environ}


def _is_withheld(name: str) -> bool:
    return name in _MISLEADING or name.startswith(_OURS) or _SECRET.search(name) is not None
