"""What this queen has for nodes: her own platform, her own wheel, her engine, and what lies ready. Blocks."""

import platform
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from queen_rbee.domain.nodes.platform_tag import PlatformTag, engine_directory
from queen_rbee.domain.nodes.preflight import Mine
from queen_rbee.domain.nodes.probe_report import Python, cpu_features
from queen_rbee.nodes.wheels import Wheel, own_wheel
from rbee_shared.errors import InstallFailedError
from rbee_shared.version import __version__

ENGINE = "llama-cpp-python"
_ENGINE_LOCK = "rbee_hive/builds/engine.lock"
_ACCELERATORS = ("cuda", "metal", "vulkan")


@dataclass(frozen=True)
class OwnRbee:
    """What she runs herself, as it was when this was made. `lock`: of libraries; `engine_lock`: of worker builds."""

    version: str
    wheel: Wheel
    lock: str
    engine_lock: str
    tag: PlatformTag
    cpu: frozenset[str]
    engine: str | None

    def for_nodes(self, wheelhouses: Iterable[str], wheels_dir: Path | None) -> Mine:
        """With what lies ready now. `wheelhouses`: the names of the platforms that a current one is there for."""
        return Mine(
            version=self.version,
            wheel_sha256=self.wheel.sha256,
            tag=self.tag,
            cpu=self.cpu,
            engine=self.engine,
            engines=_directories_with_a_wheel(wheels_dir),
            wheelhouses=frozenset(wheelhouses),
        )


def own_rbee() -> OwnRbee:
    """Takes about 0.2 s: make it once, when the first node is looked at.

    Raises:
        InstallFailedError: this rbee is not installed as a package.
    """
    wheel = own_wheel()
    tag = this_platform()
    return OwnRbee(
        version=__version__,
        wheel=wheel,
        lock=files("queen_rbee.nodes").joinpath("node.lock").read_text(encoding="utf-8"),
        engine_lock=wheel.read(_ENGINE_LOCK),
        tag=tag,
        cpu=this_cpu(),
        engine=_own_engine(tag),
    )


def this_platform() -> PlatformTag:
    """Of the Python that runs this.

    Raises:
        InstallFailedError: nodes are not supported from here.
    """
    soabi = str(sysconfig.get_config_var("SOABI"))
    libc, libc_version = platform.libc_ver()
    python = Python(
        path=sys.executable,
        version=sys.version_info[:3],
        implementation=sys.implementation.name,
        bits=64,
        free_threaded=False,
        venv=True,
        system=platform.system(),
        machine=platform.machine(),
        libc="musl" if "musl" in soabi else libc,
        libc_version=libc_version,
        macos_version=platform.mac_ver()[0],
    )
    if python.tag is None:
        raise InstallFailedError(f"rbee cannot be sent to nodes from {platform.system()}", hint="Use Linux or macOS.")
    return python.tag


def this_cpu() -> frozenset[str]:
    """What this processor can do, as a look at a node says it of another one."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((cpu_features(line) for line in lines if line.startswith(("flags", "Features"))), frozenset())
    return cpu_features(_brand())


def _brand() -> str:
    import subprocess  # noqa: PLC0415 - on macOS only

    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - words of our own


def _own_engine(tag: PlatformTag) -> str | None:
    """The directory that a hive looks for it in; None where this environment has no engine."""
    try:
        found = distribution(ENGINE)
    except PackageNotFoundError:
        return None
    names = [file.name for file in found.files or ()]
    kind = next((kind for kind in _ACCELERATORS if any(name.startswith(f"libggml-{kind}.") for name in names)), "cpu")
    return engine_directory(kind, found.version, tag)


def _directories_with_a_wheel(wheels_dir: Path | None) -> frozenset[str]:
    found = wheels_dir.glob("*/llama_cpp_python-*.whl") if wheels_dir is not None else ()
    return frozenset(path.parent.name for path in found)
