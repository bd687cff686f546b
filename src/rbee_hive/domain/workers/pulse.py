"""The signs of life of a worker, and what their absence means.

A worker speaks by heartbeats. They can stop; and they can go on while its engine stands still inside C code: then
neither the load nor the decode steps go on.
"""

from dataclasses import dataclass, replace

from rbee_shared.clocks import Clocks
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerState
from rbee_shared.errors import InferenceStalledError, LoadingTimeoutError, RbeeError, WorkerCrashedError

_STALL_SHARE = 1.1
_STALL_BEATS = 2


@dataclass(frozen=True)
class Pulse:
    """Moments are seconds on one clock that never jumps. `load_done` is per mille."""

    heard_at_s: float
    loaded_at_s: float
    stepped_at_s: float
    load_done: int = 0
    steps: int | None = None
    answers_in_engine: int = 0

    @classmethod
    def beginning(cls, now_s: float) -> "Pulse":
        """Of a process that has only just begun."""
        return cls(heard_at_s=now_s, loaded_at_s=now_s, stepped_at_s=now_s)


def after_words(pulse: Pulse, now_s: float) -> Pulse:
    """It has said something: it lives."""
    return replace(pulse, heard_at_s=now_s)


def after_heartbeat(pulse: Pulse, beat: WorkerHeartbeat, now_s: float) -> Pulse:
    """It has said how far it is. An engine without answers stands still by right."""
    load_done = pulse.load_done if beat.load_done is None else beat.load_done
    moved = beat.engine_steps != pulse.steps or beat.answers_in_engine == 0
    return Pulse(
        heard_at_s=now_s,
        loaded_at_s=now_s if load_done != pulse.load_done else pulse.loaded_at_s,
        stepped_at_s=now_s if moved else pulse.stepped_at_s,
        load_done=load_done,
        steps=beat.engine_steps,
        answers_in_engine=beat.answers_in_engine,
    )


def engine_stall_s(clocks: Clocks) -> float:
    """When the hive ends a stalled worker: after the worker itself had time to end its answers with that error."""
    return clocks.engine_stall_s * _STALL_SHARE + clocks.heartbeat_s * _STALL_BEATS


def fault(state: WorkerState, pulse: Pulse, clocks: Clocks, now_s: float) -> RbeeError | None:
    """Why the worker must be ended; None if nothing is wrong with it. One that drains is minded by who ordered that."""
    if state is WorkerState.DRAINING:
        return None
    if now_s - pulse.heard_at_s > clocks.lost_s:
        return WorkerCrashedError(f"no heartbeat came from the worker for {clocks.lost_s:.0f} s: it was killed")
    if state is WorkerState.LOADING and now_s - pulse.loaded_at_s > clocks.load_stall_s:
        return LoadingTimeoutError(
            f"the load made no progress for {clocks.load_stall_s:.0f} s",
            details={"load_done_per_mille": pulse.load_done},
        )
    still_s = now_s - pulse.stepped_at_s
    if pulse.answers_in_engine > 0 and still_s > engine_stall_s(clocks):
        return InferenceStalledError(
            f"the engine has made no step for {still_s:.0f} s: the worker was killed",
            details={"engine_steps": pulse.steps, "answers_in_engine": pulse.answers_in_engine},
        )
    return None
