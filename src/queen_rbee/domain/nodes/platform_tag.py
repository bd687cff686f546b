"""What compiled files are made for: system, processor, C library and Python; and what fits where. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Libc = Literal["glibc", "musl", "macos"]

_OLDEST_GLIBC_MINOR = 5
_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
_ARM_MACS_BEGIN_MAJOR = 11


@dataclass(frozen=True)
class PlatformTag:
    """Of one Python. `platform`: `linux-x86_64`, `darwin-arm64`; `python`: `cp311`.

    `libc_version`: major and minor number of the C library, on macOS of the system.
    """

    platform: str
    python: str
    libc: Libc
    libc_version: tuple[int, int]

    @property
    def name(self) -> str:
        """Of a directory for it: `linux-x86_64-cp311`, `linux-x86_64-musl-cp311`."""
        musl = "-musl" if self.libc == "musl" else ""
        return f"{self.platform}{musl}-{self.python}"

    @property
    def machine(self) -> str:
        return self.platform.partition("-")[2]

    @property
    def python_version(self) -> str:
        """`3.11`."""
        return f"{self.python[2]}.{self.python[3:]}"

    def takes(self, made_on: "PlatformTag") -> bool:
        """Whether what was compiled on a machine like `made_on` loads here: nothing there may be newer."""
        return self.name == made_on.name and self.libc == made_on.libc and self.libc_version >= made_on.libc_version

    def wheel_platforms(self) -> tuple[str, ...]:
        """The platforms of wheels that pip may take, the most special first: `manylinux_2_36_x86_64` and older."""
        major, minor = self.libc_version
        if self.libc == "macos":
            return (f"macosx_{major}_{minor if major < _ARM_MACS_BEGIN_MAJOR else 0}_{self.machine}",)
        if self.libc == "musl":
            return tuple(f"musllinux_{major}_{older}_{self.machine}" for older in range(minor, -1, -1))
        return tuple(self._glibc_platforms(minor))

    def markers(self) -> dict[str, str]:
        """What environment markers of requirements are compared with."""
        is_mac = self.libc == "macos"
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Darwin" if is_mac else "Linux",
            "python_full_version": f"{self.python_version}.0",
            "python_version": self.python_version,
            "sys_platform": "darwin" if is_mac else "linux",
        }

    def _glibc_platforms(self, newest: int) -> Iterable[str]:
        for minor in range(newest, _OLDEST_GLIBC_MINOR - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if minor in _OLD_NAMES:
                yield f"{_OLD_NAMES[minor]}_{self.machine}"


def engine_directory(kind: str, engine_version: str, tag: PlatformTag) -> str:
    """Where a hive with that Python looks for the engine's wheel below its `wheels_dir`."""
    return f"{kind}-{engine_version}-{tag.python}-{tag.platform}"
