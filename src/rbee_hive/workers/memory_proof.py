"""The proof that a worker's memory is free again, told to people either way.

After an ordered stop it is measured. After a death that nobody ordered there is no measure of before, so only what
the worker left behind is looked for.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.to_thread

from rbee_hive.domain.workers.memory import Holder, MemoryFacts, missing_bytes, released
from rbee_hive.workers.memory_probe import Before, left_behind, measure_after, measure_before
from rbee_shared.clocks import Clocks
from rbee_shared.errors import MemoryNotReleasedError, RbeeError
from rbee_shared.narration import Narrator
from rbee_shared.units import format_bytes

DeviceFree = Callable[[], Awaitable[int | None]]


@dataclass(frozen=True)
class StopReport:
    """What became of a worker's memory. `error` is set when it did not come back."""

    facts: MemoryFacts
    error: RbeeError | None


async def look_before(worker_id: str, pid: int, device_free: DeviceFree) -> Before:
    """Look before the worker is told to go."""
    before = await anyio.to_thread.run_sync(measure_before, worker_id, pid)
    return replace(before, device_free_bytes=await device_free())


async def proof(before: Before, clocks: Clocks, narrator: Narrator, device_free: DeviceFree) -> StopReport:
    """Look until the memory is back, at most `memory_back_s`."""
    began_s = anyio.current_time()
    while True:
        facts = await anyio.to_thread.run_sync(measure_after, before)
        if released(facts) or anyio.current_time() - began_s > clocks.memory_back_s:
            break
        await anyio.sleep(clocks.memory_poll_s)
    if before.device_free_bytes is not None:
        facts = replace(
            facts, device_free_before_bytes=before.device_free_bytes, device_free_after_bytes=await device_free()
        )
    error = None if released(facts) else _not_released(before.worker_id, facts)
    _tell(narrator, before.worker_id, facts, error)
    return StopReport(facts, error)


async def look_behind(worker_id: str, pid: int, clocks: Clocks, narrator: Narrator) -> None:
    """Look for what a worker left behind that died by itself: it is given `memory_back_s` to go, then named.

    Returns at once where there is nothing.
    """
    began_s = anyio.current_time()
    while holders := await anyio.to_thread.run_sync(left_behind, worker_id, pid):
        if anyio.current_time() - began_s > clocks.memory_back_s:
            error = _still_held(worker_id, holders)
            _say_held(narrator, worker_id, error, error.message)
            return
        await anyio.sleep(clocks.memory_poll_s)


def _tell(narrator: Narrator, worker_id: str, facts: MemoryFacts, error: RbeeError | None) -> None:
    free = _free(facts)
    numbers: dict[str, Any] = {
        "worker_bytes": facts.worker_bytes,
        "free_before_bytes": facts.free_before_bytes,
        "free_after_bytes": facts.free_after_bytes,
    }
    if facts.device_free_after_bytes is not None:
        numbers["device_free_before_bytes"] = facts.device_free_before_bytes
        numbers["device_free_after_bytes"] = facts.device_free_after_bytes
    if error is None:
        text = f"worker {worker_id} is gone, its {format_bytes(facts.worker_bytes)} are free again {free}"
        narrator.tell("worker_gone", text, cute="🧹", worker_id=worker_id, **numbers)
    else:
        _say_held(narrator, worker_id, error, f"{error.message} {free}", **numbers)


def _say_held(narrator: Narrator, worker_id: str, error: RbeeError, text: str, **numbers: int) -> None:
    facts = {"worker_id": worker_id, "code": error.code, **numbers, **error.details}
    narrator.tell("memory_not_released", text, cute="🚱", level="error", **facts)


def _free(facts: MemoryFacts) -> str:
    """`(4.0 GB → 5.1 GB free; on its device 1.2 GB → 9.9 GB)`."""
    text = f"{format_bytes(facts.free_before_bytes)} → {format_bytes(facts.free_after_bytes)} free"
    before, after = facts.device_free_before_bytes, facts.device_free_after_bytes
    if before is None or after is None:
        return f"({text})"
    return f"({text}; on its device {format_bytes(before)} → {format_bytes(after)})"


def _not_released(worker_id: str, facts: MemoryFacts) -> MemoryNotReleasedError:
    text = f"worker {worker_id} is gone, but {format_bytes(missing_bytes(facts))} of its memory are not free"
    hint = (
        None if facts.holders else "No process of that worker is left: look for shared memory, or restart that machine."
    )
    return MemoryNotReleasedError(
        f"{text}: {_named(facts.holders)}" if facts.holders else text,
        hint=hint,
        details={"holders": _listed(facts.holders), "missing_bytes": missing_bytes(facts)},
    )


def _still_held(worker_id: str, holders: tuple[Holder, ...]) -> MemoryNotReleasedError:
    return MemoryNotReleasedError(
        f"worker {worker_id} died, but not all of it: {_named(holders)}",
        details={"holders": _listed(holders), "missing_bytes": sum(holder.held_bytes for holder in holders)},
    )


def _named(holders: Iterable[Holder]) -> str:
    return ", ".join(f"{h.name} (pid {h.pid}) holds {format_bytes(h.held_bytes)}" for h in holders)


def _listed(holders: Iterable[Holder]) -> list[dict[str, Any]]:
    return [{"pid": holder.pid, "name": holder.name, "held_bytes": holder.held_bytes} for holder in holders]
