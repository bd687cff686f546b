"""The proof that a worker's memory is free again, told to people either way."""

from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from rbee_hive.domain.workers.memory import MemoryFacts, missing_bytes, released
from rbee_hive.workers.memory_probe import Before, measure_after
from rbee_shared.clocks import Clocks
from rbee_shared.errors import MemoryNotReleasedError, RbeeError
from rbee_shared.narration import Narrator
from rbee_shared.units import format_bytes


@dataclass(frozen=True)
class StopReport:
    """What became of a worker's memory. `error` is set when it did not come back."""

    facts: MemoryFacts
    error: RbeeError | None


async def proof(before: Before, clocks: Clocks, narrator: Narrator) -> StopReport:
    """Look until the memory is back, at most `memory_back_s`."""
    began_s = anyio.current_time()
    while True:
        facts = await anyio.to_thread.run_sync(measure_after, before)
        if released(facts) or anyio.current_time() - began_s > clocks.memory_back_s:
            break
        await anyio.sleep(clocks.memory_poll_s)
    error = None if released(facts) else _not_released(before.worker_id, facts)
    _tell(narrator, before.worker_id, facts, error)
    return StopReport(facts, error)


def _tell(narrator: Narrator, worker_id: str, facts: MemoryFacts, error: RbeeError | None) -> None:
    free = f"({format_bytes(facts.free_before_bytes)} → {format_bytes(facts.free_after_bytes)} free)"
    numbers: dict[str, Any] = {
        "worker_id": worker_id,
        "worker_bytes": facts.worker_bytes,
        "free_before_bytes": facts.free_before_bytes,
        "free_after_bytes": facts.free_after_bytes,
    }
    if error is None:
        text = f"worker {worker_id} is gone, its {format_bytes(facts.worker_bytes)} are free again {free}"
        narrator.tell("worker_gone", text, cute="🧹", **numbers)
    else:
        text = f"{error.message} {free}"
        numbers |= {"code": error.code, **error.details}
        narrator.tell("memory_not_released", text, cute="🚱", level="error", **numbers)


def _not_released(worker_id: str, facts: MemoryFacts) -> MemoryNotReleasedError:
    holders = [{"pid": holder.pid, "name": holder.name, "held_bytes": holder.held_bytes} for holder in facts.holders]
    named = ", ".join(f"{h.name} (pid {h.pid}) holds {format_bytes(h.held_bytes)}" for h in facts.holders)
    text = f"worker {worker_id} is gone, but {format_bytes(missing_bytes(facts))} of its memory are not free"
    hint = None if holders else "No process of that worker is left: look for shared memory, or restart that machine."
    return MemoryNotReleasedError(
        f"{text}: {named}" if named else text,
        hint=hint,
        details={"holders": holders, "missing_bytes": missing_bytes(facts)},
    )
