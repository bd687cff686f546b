"""Asks a queen for N answers at once and says when their tokens came, as JSON.

streams.py URL N TASK_AS_JSON  ->  {"first_s": [...], "tokens": n, "whole_s": s, "gaps_s": [...]}
"""

import json
import sys
import time
from typing import Any

import aiohttp
import anyio


async def _one(session: aiohttp.ClientSession, url: str, task: dict[str, Any], times: list[list[float]]) -> None:
    began_s = time.perf_counter()
    seen = [began_s]
    async with session.post(f"{url}/v2/tasks", json={**task, "stream": True}) as response:
        response.raise_for_status()
        while line := await response.content.readline():
            if line.startswith(b"event: token"):
                seen.append(time.perf_counter())
            elif line.startswith(b"event: error"):
                raise SystemExit((await response.content.readline()).decode())
    times.append(seen)


async def main(url: str, count: int, task: dict[str, Any]) -> None:
    times: list[list[float]] = []
    began_s = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
        anyio.create_task_group() as group,
    ):
        for _ in range(count):
            group.start_soon(_one, session, url, task, times)
    first = [seen[1] - seen[0] for seen in times if len(seen) > 1]
    gaps = [(seen[-1] - seen[1]) / (len(seen) - 2) for seen in times if len(seen) > 2]
    tokens = sum(len(seen) - 1 for seen in times)
    print(json.dumps({"first_s": first, "gaps_s": gaps, "tokens": tokens, "whole_s": time.perf_counter() - began_s}))


anyio.run(main, sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
