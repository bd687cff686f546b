"""Why a worker died that nobody had told to: from its state, its exit, its own words and the kernel's counter."""

import signal
from dataclasses import dataclass
from typing import Any

from rbee_shared.child import describe_exit
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import (
    InsufficientMemoryError,
    ModelInvalidError,
    NoCapacityError,
    PortInUseError,
    RbeeError,
    WorkerCrashedError,
)

# how llama.cpp's C++ ends when a file is not what its header promises
_CRASHES = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE})


@dataclass(frozen=True)
class OomKills:
    """The kernel has ended `count` processes for lack of memory, where the worker ran. `counted_in`: says who."""

    count: int
    counted_in: str


@dataclass(frozen=True)
class Exit:
    """How it ended. `last_words`: the end of its standard error. `resident_bytes`: what it last said it held."""

    returncode: int
    last_words: tuple[str, ...] = ()
    oom: OomKills | None = None
    resident_bytes: int | None = None


def is_foreign_kill(returncode: int, said: RbeeError | None) -> bool:
    """Whether a KILL ended it that nobody here sent: the kernel's, or a person's."""
    return said is None and returncode == -signal.SIGKILL


def why_it_died(state: WorkerState, end: Exit, said: RbeeError | None, model_path: str) -> RbeeError:
    """The worker's own error, or its hive's verdict, if there is one; else what the exit tells.

    A crash of the engine while loading blames the model file. A KILL that nobody here sent is the kernel's if the
    kernel has counted one.
    """
    if isinstance(said, PortInUseError):
        return NoCapacityError(said.message, details=said.details)
    if said is not None:
        return said
    how = describe_exit(end.returncode)
    details: dict[str, Any] = {"exit": how, "last_words": list(end.last_words)}
    if end.oom is not None and is_foreign_kill(end.returncode, said):
        numbers = {"oom_kills": end.oom.count, "counted_in": end.oom.counted_in, "resident_bytes": end.resident_bytes}
        return InsufficientMemoryError(
            f"the kernel ended the worker for lack of memory while {state} ({how})", details=details | numbers
        )
    if state is WorkerState.LOADING and end.returncode in _CRASHES:
        return ModelInvalidError(f"the engine crashed while it loaded {model_path} ({how})", details=details)
    return WorkerCrashedError(f"the worker died while {state} ({how})", details=details)
