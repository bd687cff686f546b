"""What a look at a machine means: one line for each finding, and what is to be done before a hive can start there.

Pure. Nothing has been uploaded yet when this is said, also not how the machine will get a worker build.
"""

from dataclasses import dataclass

from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.domain.nodes.probe_report import Installed, Probe, Python
from queen_rbee.domain.nodes.python_choice import choose_python
from rbee_shared.errors import (
    DiskFullError,
    InstallFailedError,
    NotInstalledError,
    PythonMissingError,
    RbeeError,
    VersionMismatchError,
)
from rbee_shared.units import format_bytes

_MIB = 1024**2
INSTALL_ROOM_BYTES = 400 * _MIB
"""Libraries unpacked take 220 MiB, their archives 50, what pip holds twice for a moment 50; the rest is for logs."""


@dataclass(frozen=True)
class Mine:
    """What this queen has for nodes.

    `wheel_sha256`: of her own wheel, which is what "the same version" means. `engine`: the directory of the engine of
    her own environment, which was compiled for a processor that can do `cpu`; None when she has none. `engines`: of
    those in `wheels_dir`. `wheelhouses`: the names of the platforms that a current one is there for.
    """

    version: str
    wheel_sha256: str
    tag: PlatformTag
    cpu: frozenset[str] = frozenset()
    engine: str | None = None
    engines: frozenset[str] = frozenset()
    wheelhouses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One line. `about`: `shell`, `python`, `platform`, `disk`, `rbee`, `hive`, `worker_build`."""

    about: str
    said: str
    is_good: bool = True


@dataclass(frozen=True)
class Ready:
    """Nothing is to be done."""

    installed: Installed


@dataclass(frozen=True)
class Install:
    """Rbee has to go there. `wheelhouse`: its libraries go along too, else the machine fetches them."""

    python: Python
    tag: PlatformTag
    wheelhouse: bool
    was: Installed | None = None
    """What it replaces."""


@dataclass(frozen=True)
class Refuse:
    error: RbeeError


Verdict = Ready | Install | Refuse


@dataclass(frozen=True)
class Assessment:
    """`engines`: directories of `Mine.engines` that fit there; `own_engine`: the queen's own engine does too."""

    findings: tuple[Finding, ...]
    verdict: Verdict
    engines: tuple[str, ...] = ()
    own_engine: bool = False


def assess(probe: Probe, mine: Mine, node: str, *, may_install: bool) -> Assessment:
    """What was found there, and what follows. `may_install` False: a machine that lacks this rbee is refused.

    `node`: what the machine is called here, for next steps; it may call itself something else.
    """
    python = choose_python(probe.pythons, mine.tag)
    tag = python.tag if python else None
    engines = fitting_engines(mine, tag) if tag else ()
    own_engine = tag is not None and own_engine_fits(probe, mine, tag)
    verdict = _verdict(probe, mine, python, node, may_install=may_install)
    findings = (
        Finding("shell", f"the shell of {probe.user} on {probe.host} runs commands"),
        _python_finding(probe, python, node),
        _platform_finding(probe, mine, tag),
        _disk_finding(probe),
        _rbee_finding(probe, mine),
        _hive_finding(probe),
        _worker_build_finding(probe, engines, own_engine=own_engine),
    )
    return Assessment(findings, verdict, engines, own_engine)


def fitting_engines(mine: Mine, tag: PlatformTag) -> tuple[str, ...]:
    """The finished engines that a hive with that Python can use, by the name of their directory."""
    ending = f"-{tag.python}-{tag.platform}"
    return tuple(sorted(name for name in mine.engines if name.endswith(ending)))


def own_engine_fits(probe: Probe, mine: Mine, tag: PlatformTag) -> bool:
    """Whether the queen's engine runs there: it was compiled for her processor, and uses all that it can do."""
    return mine.engine is not None and tag.takes(mine.tag) and bool(mine.cpu) and mine.cpu <= probe.cpu


def is_mine(probe: Probe, mine: Mine) -> bool:
    """Whether the rbee there is the queen's very own, and runs."""
    installed = probe.installed
    return installed is not None and installed.wheel_sha256 == mine.wheel_sha256 and probe.runs == mine.version


def _verdict(probe: Probe, mine: Mine, python: Python | None, node: str, *, may_install: bool) -> Verdict:
    was = probe.installed
    if was is not None and is_mine(probe, mine):
        return Ready(was)
    if not may_install:
        return Refuse(_forbidden(probe, mine, node))
    if python is None or (tag := python.tag) is None:
        return Refuse(_no_python(probe, node))
    if not probe.writable:
        text = f"{probe.user} may not write where rbee would be on {node}: {probe.home}"
        return Refuse(InstallFailedError(text, hint=_other_home(node)))
    if probe.disk_free_bytes is not None and probe.disk_free_bytes < INSTALL_ROOM_BYTES:
        return Refuse(_no_room(probe, probe.disk_free_bytes, node))
    return Install(python, tag, tag.name in mine.wheelhouses, was)


def _other_home(node: str) -> str:
    return f"Name another directory: rbee-keeper node add {node} --home DIRECTORY."


def _forbidden(probe: Probe, mine: Mine, node: str) -> RbeeError:
    if probe.installed is None:
        return NotInstalledError(
            f"rbee is not installed on {node}", hint=f"Install it: rbee-keeper node install {node}."
        )
    return VersionMismatchError(
        f"{node} has {_version_there(probe, mine)}, and this queen is {mine.version}",
        hint=f"Update it when its workers are done: rbee-keeper node update {node}.",
    )


def _no_python(probe: Probe, node: str) -> PythonMissingError:
    unfit = "; ".join(f"{python.said}: {_why_unfit(python)}" for python in probe.pythons if python.is_recent)
    others = ", ".join(python.said for python in probe.pythons)
    found = f"none of these will do: {unfit}" if unfit else f"found: {others or 'none'}"
    return PythonMissingError(f"{node} has no Python from 3.11 on that rbee runs on ({found})")


def _why_unfit(python: Python) -> str:
    if not python.venv:
        return "its venv module is missing (Debian: apt-get install python3-venv)"
    if python.tag is None:
        return f"{python.system} is not supported"
    return "rbee needs the usual CPython with 64 bits"


def _no_room(probe: Probe, free_bytes: int, node: str) -> DiskFullError:
    return DiskFullError(
        f"rbee takes {format_bytes(INSTALL_ROOM_BYTES)} on {node}, and {probe.home} has "
        f"{format_bytes(free_bytes)} free",
        hint=f"Free space there. {_other_home(node)}",
        details={"needed_bytes": INSTALL_ROOM_BYTES, "free_bytes": free_bytes},
    )


def _python_finding(probe: Probe, python: Python | None, node: str) -> Finding:
    if python is None:
        return Finding("python", _no_python(probe, node).message, is_good=False)
    return Finding("python", f"{python.said} will do")


def _platform_finding(probe: Probe, mine: Mine, tag: PlatformTag | None) -> Finding:
    there = f"{probe.system} {probe.machine}"
    if tag is None:
        return Finding("platform", there, is_good=False)
    if tag.takes(mine.tag):
        return Finding("platform", f"{there}, like this machine: what is compiled here runs there")
    source = "a wheelhouse is there for it" if tag.name in mine.wheelhouses else "its libraries come from an index"
    return Finding("platform", f"{there} ({tag.name}), unlike this machine ({mine.tag.name}): {source}")


def _disk_finding(probe: Probe) -> Finding:
    free_bytes = probe.disk_free_bytes
    if free_bytes is None:
        return Finding("disk", f"how much room {probe.home} has cannot be asked", is_good=False)
    return Finding(
        "disk", f"{format_bytes(free_bytes)} free for {probe.home}", is_good=free_bytes >= INSTALL_ROOM_BYTES
    )


def _rbee_finding(probe: Probe, mine: Mine) -> Finding:
    if probe.installed is None:
        return Finding("rbee", "rbee is not installed there yet", is_good=False)
    if is_mine(probe, mine):
        return Finding("rbee", f"rbee {mine.version} is installed, the same as here")
    return Finding("rbee", f"rbee there is {_version_there(probe, mine)}, here it is {mine.version}", is_good=False)


def _version_there(probe: Probe, mine: Mine) -> str:
    assert probe.installed is not None
    if probe.runs is None:
        return f"{probe.installed.version}, which does not run"
    is_same_name = probe.installed.version == mine.version
    return f"{probe.installed.version} of other code" if is_same_name else probe.installed.version


def _hive_finding(probe: Probe) -> Finding:
    hive = probe.hive
    if probe.hive_damaged:
        return Finding("hive", f"what a hive has noted of itself in {probe.home}/run cannot be read", is_good=False)
    if hive is None or not hive.alive:
        return Finding("hive", "no hive runs there")
    return Finding("hive", f"a hive runs there at {hive.url} (pid {hive.pid})")


def _worker_build_finding(probe: Probe, engines: tuple[str, ...], *, own_engine: bool) -> Finding:
    if engines:
        return Finding("worker_build", f"worker builds will be made from engine wheels: {', '.join(engines)}")
    if own_engine:
        return Finding("worker_build", "the worker build will be made from this machine's engine, which fits there")
    if probe.compiler:
        return Finding("worker_build", f"the worker build will be compiled there with {probe.compiler}, once")
    return Finding(
        "worker_build",
        "no worker build can be made there: it has no C++ compiler, and no engine wheel here fits "
        "(install g++ or Xcode's command line tools there, or put a wheel into wheels_dir here)",
        is_good=False,
    )
