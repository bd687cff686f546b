"""Loads a build in a process of its own, which may crash or hang, and reads what it says about itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import anyio.to_thread

from rbee_hive.builds.step import StepPlace, run_step
from rbee_hive.domain.builds.build_plan import probe_environment
from rbee_hive.domain.builds.probe_report import ProbeFailure, ProbeReport, read_probe
from rbee_shared.errors import BuildFailedError
from rbee_shared.programs import program_argv

_PROBE_S = 60.0  # a first CUDA context on a machine with many cards takes seconds


async def probe(
    directory: Path | None,
    environ: Mapping[str, str],
    place: StepPlace,
    hear: Callable[[Sequence[str]], None] = lambda _: None,
) -> ProbeReport | ProbeFailure:
    """What the build in `directory` is; None asks the hive's own environment."""
    argv = [*await anyio.to_thread.run_sync(program_argv, "llm-worker-rbee"), "--probe"]
    if directory is not None:
        argv += ["--engine-path", str(directory)]
    quick = replace(place, silence_s=min(place.silence_s, _PROBE_S))
    try:
        end = await run_step(argv, probe_environment(environ), quick, hear)
    except BuildFailedError as error:
        return ProbeFailure(f"loading it did not work: {error.message}")
    return read_probe(end.lines, end.how)
