"""A real queen, and an application that talks to her."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from tests.support.cluster import Cluster, Running, frames_of
from tests.support.scripted_node import MODEL

_SOON_S = 20.0


@dataclass
class LiveQueen:
    """`client` carries the token."""

    running: Running
    url: str
    token: str
    client: httpx2.AsyncClient

    async def submit(self, **fields: Any) -> str:
        """The id of a new task, whose answer nobody waits for yet."""
        answer = await self.client.post("/v2/tasks", json={"prompt": "hi", "model": MODEL, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    async def events(self, task_id: str, after: int | None = None) -> list[dict[str, Any]]:
        """Every event of a task, to its end."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with anyio.fail_after(60):
            answer = await self.client.get(f"/v2/tasks/{task_id}/events", headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        return frames_of(answer.text)

    async def last(self, task_id: str) -> dict[str, Any]:
        """Its only terminal event, which is its last one."""
        events = await self.events(task_id)
        terminal = [event for event in events if event["type"] in {"end", "error"}]
        assert len(terminal) == 1, terminal
        assert events[-1] is terminal[0], "nothing follows the last event"
        return terminal[0]

    async def answer(self, **fields: Any) -> dict[str, Any]:
        """Submit, and the last event."""
        return await self.last(await self.submit(**fields))

    async def view(self, task_id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/v2/tasks/{task_id}")).json())

    async def workers(self) -> list[dict[str, Any]]:
        return list((await self.client.get("/v2/workers")).json()["workers"])

    async def until(self, task_id: str, status: str) -> None:
        with anyio.fail_after(_SOON_S):
            while (await self.view(task_id))["status"] != status:  # noqa: ASYNC110 - only she knows
                await anyio.sleep(0.02)

    async def is_at_rest(self) -> None:
        """No task is unfinished, no slot promised."""
        with anyio.fail_after(_SOON_S):
            while await self._unfinished() or await self._slots_taken():  # noqa: ASYNC110 - only she knows
                await anyio.sleep(0.05)

    async def _unfinished(self) -> list[str]:
        tasks = (await self.client.get("/v2/tasks", params={"limit": 1000})).json()["tasks"]
        return [task["task_id"] for task in tasks if task["status"] in {"queued", "preparing", "running"}]

    async def _slots_taken(self) -> list[str]:
        return [
            w["id"] for w in await self.workers() if w["state"] == "idle" and w["slots_available"] < w["slots_total"]
        ]


@asynccontextmanager
async def live_queen(cluster: Cluster) -> AsyncGenerator[LiveQueen]:
    """`queen-rbee daemon`, told to end on leaving; she must then do so."""
    running = cluster.start("queen-rbee", "daemon")
    url = await anyio.to_thread.run_sync(cluster.queen_url)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False, verify=False) as client:
        yield LiveQueen(running, url, cluster.token, client)
    if running.process.poll() is None:
        running.process.terminate()
    assert await anyio.to_thread.run_sync(running.wait) == 0, running.stderr
