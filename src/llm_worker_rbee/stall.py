"""Sees from outside that the engine stands still: its thread may be inside C code and cannot say so itself."""

import anyio

from llm_worker_rbee.services import Services
from rbee_shared.errors import InferenceStalledError

_CHECKS = 10


async def watch_engine(services: Services) -> None:
    """End running answers with an error when no decode step was completed for `engine_stall_s`. Runs for ever."""
    limit_s = services.clocks.engine_stall_s
    seen, moved_at_s = services.engine.steps, anyio.current_time()
    while True:
        await anyio.sleep(limit_s / _CHECKS)
        steps, now_s = services.engine.steps, anyio.current_time()
        if steps != seen or not services.jobs.in_engine:
            seen, moved_at_s = steps, now_s
        elif now_s - moved_at_s >= limit_s:
            services.jobs.fail_all(InferenceStalledError(f"the engine has made no step for {limit_s:.0f} s"))
            moved_at_s = now_s
