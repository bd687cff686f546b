"""Why a worker died that nobody had told to: pure, from its state, its exit and what it said before."""

import signal
from collections.abc import Sequence

from rbee_shared.child import describe_exit
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import ModelInvalidError, RbeeError, WorkerCrashedError

# how llama.cpp's C++ ends when a file is not what its header promises
_CRASHES = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE})


def why_it_died(
    state: WorkerState, returncode: int, said: RbeeError | None, last_words: Sequence[str], model_path: str
) -> RbeeError:
    """The worker's own error if it said one; a crash of the engine while loading blames the model file."""
    if said is not None:
        return said
    details = {"exit": describe_exit(returncode), "last_words": list(last_words)}
    if state is WorkerState.LOADING and returncode in _CRASHES:
        return ModelInvalidError(
            f"the engine crashed while it loaded {model_path} ({describe_exit(returncode)})", details=details
        )
    return WorkerCrashedError(f"the worker died while {state} ({describe_exit(returncode)})", details=details)
