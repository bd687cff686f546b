"""What a machine lacks to compile a worker build, and how to get it there. Pure: somebody else has looked."""

from dataclasses import dataclass

from rbee_shared.contracts.provisions import BuildKind
from rbee_shared.errors import BuildFailedError


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit. `sees_card`: without one the compiler cannot ask which cards to compile for."""

    nvcc: str
    sees_card: bool


@dataclass(frozen=True)
class Tools:
    """What was found. `system`: `linux` or `darwin`. `compiler`: a C++ compiler that answers, not just a file."""

    system: str
    pip: bool = False
    compiler: bool = False
    cuda: Cuda | None = None
    glslc: bool = False
    vulkan_headers: bool = False


@dataclass(frozen=True)
class _Need:
    what: str
    install: dict[str, str]


_COMPILER = _Need(
    "a C++ compiler (`c++ --version` fails)",
    {
        "Debian, Ubuntu": "apt-get install g++",
        "Fedora": "dnf install gcc-c++",
        "Arch": "pacman -S gcc",
        "macOS": "xcode-select --install",
    },
)
_PIP = _Need(
    "pip in the hive's own environment",
    {"any system": "python -m ensurepip", "Debian, Ubuntu": "apt-get install python3-pip python3-venv"},
)
_NVCC = _Need(
    "the CUDA toolkit (no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda)",
    {
        "Debian, Ubuntu": "apt-get install nvidia-cuda-toolkit",
        "Fedora": "dnf install cuda-toolkit, from NVIDIA's repository",
        "Arch": "pacman -S cuda",
    },
)
_VULKAN_INSTALL = {
    "Debian, Ubuntu": "apt-get install libvulkan-dev glslc spirv-headers",
    "Fedora": "dnf install vulkan-loader-devel glslc spirv-headers-devel",
    "Arch": "pacman -S vulkan-headers vulkan-icd-loader shaderc spirv-headers",
    "macOS": "brew install vulkan-headers vulkan-loader shaderc spirv-headers molten-vk",
}
_GLSLC = _Need("the shader compiler glslc", _VULKAN_INSTALL)
_VULKAN_HEADERS = _Need("Vulkan's headers", _VULKAN_INSTALL)


def require_tools(kind: BuildKind, tools: Tools) -> None:
    """Return if everything is there that compiling needs; cmake and ninja are fetched.

    Raises:
        BuildFailedError: it is not; names all that is missing and the packages that bring it.
    """
    if (why := _impossible(kind, tools.system)) is not None:
        raise BuildFailedError(why, hint="Choose another kind: cpu works everywhere.")
    if missing := _missing(kind, tools):
        names = [need.what for need in missing]
        raise BuildFailedError(
            f"a {kind} worker build cannot be compiled here, this is missing: {'; '.join(names)}",
            hint=f"Install it, then run the command again. {_how(missing)}. Or put a wheel into `wheels_dir`.",
            details={"missing": names},
        )


def require_pip(*, there: bool) -> None:
    """Raise `BuildFailedError` without pip, which even a finished wheel needs."""
    if not there:
        raise BuildFailedError(
            f"this is missing: {_PIP.what}", hint=f"{_how([_PIP])}.", details={"missing": [_PIP.what]}
        )


def _impossible(kind: BuildKind, system: str) -> str | None:
    if kind == "metal" and system != "darwin":
        return f"Metal exists on macOS only, and this machine runs {system}"
    if kind == "cuda" and system == "darwin":
        return "CUDA does not exist on macOS"
    return None


def _missing(kind: BuildKind, tools: Tools) -> list[_Need]:
    is_there = [(tools.pip, _PIP), (tools.compiler, _COMPILER)]
    if kind == "cuda":
        is_there.append((tools.cuda is not None, _NVCC))
    if kind == "vulkan":
        is_there += [(tools.glslc, _GLSLC), (tools.vulkan_headers, _VULKAN_HEADERS)]
    return [need for found, need in is_there if not found]


def _how(missing: list[_Need]) -> str:
    """`Debian, Ubuntu: apt-get install g++; Fedora: ...`, one entry per system."""
    commands: dict[str, list[str]] = {}
    for need in missing:
        for system, command in need.install.items():
            known = commands.setdefault(system, [])
            if command not in known:
                known.append(command)
    return "; ".join(f"{system}: {' && '.join(known)}" for system, known in commands.items())
