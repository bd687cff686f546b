"""The GPU of an Apple machine, asked of the system's own programs. Only called on macOS; bounded, like every child."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from rbee_hive.devices.shared_call import SharedCall
from rbee_hive.domain.devices.apple_facts import (
    SYSCTL_NAMES,
    AppleFacts,
    AppleGpu,
    apple_devices,
    parse_displays,
    parse_sysctl,
)
from rbee_hive.domain.devices.found_devices import Found
from rbee_shared.machine_limits import Memory

_SYSCTL_S = 2.0
_PROFILER_S = 15.0  # seldom above one, but it may wait for a display to wake up


@dataclass(frozen=True)
class Programs:
    """Where macOS keeps them."""

    sysctl: Path = Path("/usr/sbin/sysctl")
    system_profiler: Path = Path("/usr/sbin/system_profiler")


class AppleMachine:
    """Its facts are asked each time, as their owner may change the GPU's share; the GPU's name and cores once."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._facts = SharedCall(self._read_facts, "sysctl")
        self._displays = SharedCall(self._read_displays, "system_profiler")
        self._known: AppleFacts | None = None
        self._gpu: AppleGpu | None = None
        self._has_asked_gpu = False

    async def read(self, ram: Memory, deadline_s: float) -> Found:
        """The GPU, if there is one that Metal workers can use, and what could not be found out by the deadline."""
        displays = None if self._has_asked_gpu else self._displays.start()
        problems = []
        try:
            self._known = await self._facts.start().result(deadline_s) or self._known
        except (TimeoutError, OSError, subprocess.SubprocessError) as error:
            problems.append(f"Metal: sysctl: {error}")
        if displays is not None:
            try:
                self._gpu, self._has_asked_gpu = await displays.result(deadline_s), True
            except (TimeoutError, OSError, subprocess.SubprocessError) as error:
                problems.append(f"Metal: system_profiler: {error}")
        found = self.last(ram)
        return Found(found.names, found.gpus, (*problems, *found.problems))

    def last(self, ram: Memory) -> Found:
        """The same from what is known, with the memory that is free now: asks nobody."""
        return apple_devices(self._known, self._gpu, ram)

    def _read_facts(self) -> AppleFacts | None:
        # a name that this system does not know makes its exit status 1, and the others are answered all the same
        return parse_sysctl(_output(self._programs.sysctl, *SYSCTL_NAMES, timeout_s=_SYSCTL_S))

    def _read_displays(self) -> AppleGpu | None:
        return parse_displays(
            _output(self._programs.system_profiler, "SPDisplaysDataType", "-json", timeout_s=_PROFILER_S)
        )


def _output(program: Path, *arguments: str, timeout_s: float) -> str:
    command = [str(program), *arguments]
    answer = subprocess.run(  # noqa: S603 - a program of the system, with arguments of ours
        command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
    )
    return answer.stdout.decode(errors="replace")
