"""What a look at a machine has found, read from the lines that it prints behind a nonce.

Whatever else stands there - a banner, the noise of a shell's rc file, before, between and after - is passed over.
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from queen_rbee.domain.nodes.platform_tag import Libc, PlatformTag
from rbee_shared.contracts.base import Wire
from rbee_shared.errors import ShellUnusableError
from rbee_shared.redaction import printable_line

_DF = re.compile(r"\s\d+\s+\d+\s+(?P<free_kib>\d+)\s+\d+%\s")
_FIRST_NUMBERS = re.compile(r"(\d{1,4})\.(\d{1,4})")
_URL = re.compile(r"http://(?:\[(?P<ipv6>[\w:.%-]{2,64})\]|[A-Za-z0-9.-]{1,253}):(?P<port>[0-9]{1,5})", re.ASCII)
_LAST_PORT = 65_535
_KIB = 1024
_SHOWN_CHARACTERS = 200
_WORD = 64
_OLDEST = (3, 11)


class Python(Wire):
    """One Python of a machine. `path`: of the interpreter itself, also when it was found through an environment."""

    path: str = Field(pattern=r"^/", max_length=1024)
    version: tuple[int, int, int]
    implementation: str
    bits: int
    free_threaded: bool
    venv: bool
    system: str = Field(max_length=_WORD)
    machine: str = Field(max_length=_WORD, pattern=r"^\w+$")
    libc: str
    libc_version: str
    macos_version: str

    @property
    def is_recent(self) -> bool:
        return self.version[:2] >= _OLDEST

    @property
    def is_fit(self) -> bool:
        """Whether rbee runs on it: there are wheels for CPython with 64 bits, and an environment can be made."""
        return (
            self.is_recent and self.venv and (self.implementation, self.bits) == ("cpython", 64)
            and not self.free_threaded and self.tag is not None
        )  # fmt: skip

    @property
    def tag(self) -> PlatformTag | None:
        """None on a system that rbee does not know."""
        known: dict[tuple[str, str], tuple[Libc, str]] = {
            ("linux", "glibc"): ("glibc", self.libc_version),
            ("linux", "musl"): ("musl", self.libc_version),
            ("darwin", self.libc): ("macos", self.macos_version),
        }
        found = known.get((self.system.lower(), self.libc))
        if found is None:
            return None
        libc, version = found
        numbers = _FIRST_NUMBERS.match(version)
        return PlatformTag(
            platform=f"{self.system}-{self.machine}".lower(),
            python=f"cp{self.version[0]}{self.version[1]}",
            libc=libc,
            libc_version=(int(numbers[1]), int(numbers[2])) if numbers else (1, 0),
        )

    @property
    def said(self) -> str:
        """For people."""
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


class Installed(Wire):
    """The rbee of a node, as its installer noted it. `id`: of its directory; `wheel_sha256` says which code it is."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,127}$")
    version: str = Field(max_length=_WORD)
    wheel_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    python: str
    installed_at_unix: int


def _of_a_program(url: str) -> str:
    found = _URL.fullmatch(url)
    if found is None or not 1 <= int(found["port"]) <= _LAST_PORT:
        raise ValueError("not http with a host and a port")
    if found["ipv6"]:
        IPv6Address(found["ipv6"])
    return url


class HiveThere(Wire):
    """A hive of that home on that machine, as it says itself. `alive`: a process of that number runs."""

    url: Annotated[str, AfterValidator(_of_a_program)]
    pid: int = Field(ge=1)
    instance: str
    alive: bool = False


@dataclass(frozen=True)
class Probe:
    """Facts about one machine and the account on it.

    `home`: where rbee is or will be; `disk_free_bytes`: there, None when it could not be asked; `runs`: the version
    that the installed rbee says, None when it does not run; `cpu`: what its processor can do; `hive_damaged`: the file
    in which a hive says what it is says something else.
    """

    system: str
    machine: str
    host: str
    user: str
    home: str
    writable: bool
    disk_free_bytes: int | None
    pythons: tuple[Python, ...]
    compiler: str | None
    cmake: str | None
    cpu: frozenset[str]
    installed: Installed | None
    runs: str | None
    hive: HiveThere | None
    hive_damaged: bool = False


def read_probe(printed: str, nonce: str, complaints: str = "") -> Probe:
    """What was found. `complaints`: what came on standard error.

    Raises:
        ShellUnusableError: the shell ran nothing, or broke off; says what it printed instead.
    """
    facts = list(_facts(printed, nonce))
    single = dict(facts)
    if not facts:
        raise _unusable("the login shell did not run what it was given", complaints.strip() or printed)
    if "end" not in single:
        raise _unusable(f"the look at the machine broke off{_where(facts)}", complaints.strip())
    hive = _read(HiveThere, single.get("hive"))
    return Probe(
        system=single.get("system", ""),
        machine=single.get("machine", ""),
        host=single.get("host", ""),
        user=single.get("user", ""),
        home=_one_spelling(single.get("home", "")),
        writable="writable" in single,
        disk_free_bytes=_free_bytes(single.get("disk", "")),
        pythons=_distinct(python for key, value in facts if key == "python" and (python := _read(Python, value))),
        compiler=single.get("compiler"),
        cmake=single.get("cmake"),
        cpu=cpu_features(single.get("cpu", "")),
        installed=_read(Installed, single.get("installed")),
        runs=single.get("runs") or None,
        hive=hive.model_copy(update={"alive": "alive" in single}) if hive else None,
        hive_damaged=hive is None and "hive" in single,
    )


def cpu_features(line: str) -> frozenset[str]:
    """Of `flags : fpu vme` in /proc/cpuinfo; elsewhere the processor's whole name is all that is known."""
    name, colon, flags = line.partition(":")
    if colon and name.strip() in {"flags", "Features"}:
        return frozenset(flags.split())
    return frozenset({line.strip()} - {""})


def _facts(printed: str, nonce: str) -> Iterable[tuple[str, str]]:
    """The nonce is no beginning of a line where an rc file printed something without a line break before it."""
    for line in printed.split("\n"):
        _, found, fact = line.partition(f"{nonce} ")
        if found:
            key, _, value = fact.rstrip("\r").partition(" ")
            yield key, value


ModelT = TypeVar("ModelT", bound=Wire)


def _read(model: type[ModelT], text: str | None) -> ModelT | None:
    try:
        return model.model_validate_json(text) if text else None
    except (ValidationError, RecursionError):
        return None


def _distinct(pythons: Iterable[Python]) -> tuple[Python, ...]:
    return tuple({python.path: python for python in pythons}.values())


def _one_spelling(path: str) -> str:
    """`/x//y/` and `/x/y` are one directory; processes are known by the path that they were started with."""
    return f"/{posixpath.normpath(path).lstrip('/')}" if path.startswith("/") else path


def _free_bytes(line: str) -> int | None:
    found = _DF.search(line)
    return int(found["free_kib"]) * _KIB if found else None


def _where(facts: list[tuple[str, str]]) -> str:
    key, value = facts[-1]
    return f" while asking {printable_line(value)[:_SHOWN_CHARACTERS]}" if key == "trying" else ""


def _unusable(what: str, said: str) -> ShellUnusableError:
    shown = printable_line(said)[:_SHOWN_CHARACTERS]
    return ShellUnusableError(f"{what}; it said {shown!r}" if shown else f"{what}, and it said nothing")
