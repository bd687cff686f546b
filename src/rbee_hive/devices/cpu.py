"""The processor and its memory: its name, how much of it this hive may use, how busy and how warm it is.

`Processor` asks the rest of this module in threads, and answers by the deadline: with what it last knew, if need be.
"""

import logging
import math
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from rbee_hive.devices.shared_call import Flight, SharedCall
from rbee_hive.domain.devices.cpu_facts import CpuFacts, CpuLoad, Ticks, temperature_c, usable_cores, utilisation_pct
from rbee_shared.machine_limits import logical_cores, memory, quota_cores

_LOG = logging.getLogger("rbee.hive.cpu")
_SYSCTL_S = 2.0
_TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class CpuReading:
    """Everything at one moment."""

    facts: CpuFacts
    load: CpuLoad
    temperature_c: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Looking:
    """A look that has begun."""

    facts: Flight[CpuFacts]
    temperature: Flight[float | None]


class Processor:
    """Made by `first_look`."""

    def __init__(self) -> None:
        self._load_call: SharedCall[CpuLoad] = SharedCall(CpuMeter().read, "cpu-load")
        self._facts_call: SharedCall[CpuFacts] = SharedCall(facts, "cpu-facts")
        self._temperature_call: SharedCall[float | None] = SharedCall(temperature, "cpu-temperature")
        self._load: CpuLoad
        self._facts: CpuFacts

    @classmethod
    async def first_look(cls) -> "Processor":
        """A processor that is known: a system that tells nothing of it runs no hive."""
        processor = cls()
        load, known = processor._load_call.start(), processor._facts_call.start()
        await load.landed()
        await known.landed()
        processor._load, processor._facts = await load.result(math.inf), await known.result(math.inf)
        return processor

    async def load(self, deadline_s: float) -> CpuLoad:
        """Memory and utilisation now."""
        with suppress(TimeoutError, OSError):
            self._load = await self._load_call.start().result(deadline_s)
        return self._load

    def begin(self) -> Looking:
        """Start to look at all else, which may take a while: sensors answer when they like."""
        return Looking(self._facts_call.start(), self._temperature_call.start())

    async def end(self, looking: Looking, load: CpuLoad, deadline_s: float) -> CpuReading:
        """What has come of it by the deadline, beside `load`."""
        problems, warmth = [], None
        try:
            self._facts = await looking.facts.result(deadline_s)
        except (TimeoutError, OSError) as error:
            problems.append(f"CPU: {error}")
        try:
            warmth = await looking.temperature.result(deadline_s)
        except TimeoutError as error:
            problems.append(f"CPU temperature: {error}")
        return CpuReading(self._facts, load, warmth, tuple(problems))


class CpuMeter:
    """Utilisation is a difference between two looks: this remembers the last one."""

    def __init__(self) -> None:
        self._before: Ticks | None = None
        self._last_pct: float | None = None

    def read(self) -> CpuLoad:
        """Memory and load now. Looks that follow each other closely give the same utilisation."""
        now = _ticks()
        before = self._before or now
        pct = utilisation_pct(before, now)
        if self._before is None or pct is not None or now.total_s < before.total_s:  # counters may start anew
            self._before, self._last_pct = now, pct
        return CpuLoad(memory(), self._last_pct)


def facts() -> CpuFacts:
    """Asked anew each time: a container's limits change while it runs."""
    logical, quota = logical_cores(), quota_cores()
    total_bytes, machine_bytes = memory().total_bytes, psutil.virtual_memory().total
    return CpuFacts(
        name=model_name(),
        cores=usable_cores(logical, quota),
        physical_cores=_physical_cores(logical),
        logical_cores=logical,
        quota_cores=quota,
        ram_limit_bytes=total_bytes if total_bytes < machine_bytes else None,
    )


def temperature() -> float | None:
    """In °C; None without a sensor."""
    read_sensors = getattr(psutil, "sensors_temperatures", None)  # psutil has none on macOS
    if read_sensors is None:
        return None
    try:
        sensors = read_sensors()
    except (OSError, ValueError) as error:  # drivers answer what they like
        _LOG.debug("temperature sensors: %s", error)
        return None
    return temperature_c({chip: [(one.label, one.current) for one in found] for chip, found in sensors.items()})


@cache
def model_name() -> str:
    """What its maker calls it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in {"model name", "hardware"} and value.strip():
                return value.strip()
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_SYSCTL_S, check=False)  # noqa: S603
            if answer.stdout.strip():
                return answer.stdout.strip()
    return platform.machine() or "CPU"


def _physical_cores(logical: int) -> int | None:
    """Distinct cores behind the processors that this process may run on."""
    if sys.platform == "linux":
        siblings = {_siblings(number) for number in os.sched_getaffinity(0)}
        if siblings and None not in siblings:
            return len(siblings)
    known = psutil.cpu_count(logical=False)
    return None if known is None else min(known, logical)


def _siblings(number: int) -> str | None:
    """The processors that share a core with that one, itself included, as the kernel writes them."""
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second: before Linux 5.3
        try:
            return (_TOPOLOGY / f"cpu{number}" / "topology" / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return None


def _ticks() -> Ticks:
    times = psutil.cpu_times()
    # user and nice contain guest and guest_nice already
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return Ticks(total_s - times.idle - getattr(times, "iowait", 0.0), total_s)
