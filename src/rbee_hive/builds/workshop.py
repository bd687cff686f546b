"""What worker builds are made with: where, by which compilers, from which finished wheels."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rbee_hive.builds.preflight import this_target
from rbee_hive.domain.builds.build_plan import Target
from rbee_hive.domain.builds.engine_lock import EngineLock
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.paths import Home

_WHOLE = 100


@dataclass(frozen=True)
class Workshop:
    """What builds are made with. `wheels_dir`: finished wheels, None for none; `jobs`: compilers at a time."""

    home: Home
    clocks: Clocks
    lock: EngineLock
    wheels_dir: Path | None = None
    jobs: int | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def target(self) -> Target:
        return this_target(self.lock.version)


def progress_event(percent: int) -> ProgressEvent:
    return ProgressEvent(stage="build", done=percent, total=_WHOLE, unit="%")
