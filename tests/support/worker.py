"""Starts real workers as a hive does, and reads their streams as the queen does."""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2

from rbee_shared.child import Child, Command, running
from rbee_shared.errors import RbeeError
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration
from rbee_shared.programs import program_argv
from rbee_shared.sse import Frame, FrameSplitter

KEY = "worker-key-for-tests-0123456789"
STORYTELLER = Path(__file__).parents[2] / "src" / "rbee_shared" / "assets" / "storyteller.gguf"


@dataclass
class RunningWorker:
    """A worker with its key."""

    child: Child
    url: str
    client: httpx2.AsyncClient
    narrated: list[Narration]

    async def until_ready(self, timeout_s: float = 15) -> None:
        with anyio.fail_after(timeout_s):
            while (await self.client.get("/v1/ready")).status_code != 204:  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.01)

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get("/health")).json()
        return answer

    async def until_idle(self, timeout_s: float = 5) -> None:
        with anyio.fail_after(timeout_s):
            while (await self.health())["slots_busy"]:  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.01)

    async def refusal(self, **body: Any) -> tuple[int, str]:
        """Status and code of an `/execute` that must not stream."""
        answer = await self.client.post("/execute", json=body)
        return answer.status_code, answer.json()["error"]["code"]

    async def execute(self, **body: Any) -> "Answer":
        """A whole answer."""
        async with self.client.stream("POST", "/execute", json=body) as response:
            assert response.status_code == 200, await response.aread()
            splitter = FrameSplitter()
            return Answer([frame async for chunk in response.aiter_bytes() for frame in splitter.feed(chunk)])


@dataclass
class Answer:
    """The frames of a stream, `[DONE]` included."""

    frames: list[Frame]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [frame.json() for frame in self.frames if frame.event == event]

    @property
    def text(self) -> str:
        return "".join(token["t"] for token in self.of("token"))

    @property
    def ids(self) -> list[int]:
        return [token for frame in self.of("token") for token in frame["ids"]]

    @property
    def end(self) -> dict[str, Any]:
        (end,) = self.of("end")
        return end

    @property
    def order(self) -> list[str]:
        return [frame.event for frame in self.frames]


@asynccontextmanager
async def worker_process(
    home: Path,
    *flags: str,
    model: Path = STORYTELLER,
    hive_url: str | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[RunningWorker]:
    """A worker that is listening; perhaps still loading."""
    narrated: list[Narration] = []
    command = _command(home, flags, model, hive_url, env)
    async with running(command, Handshake.from_here(api_key=KEY), narrated.append, stop_grace_s=5) as child:
        listening = await child.wait_listening(15)
        async with httpx2.AsyncClient(
            base_url=listening.url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30,
            trust_env=False,
            verify=False,
        ) as client:
            yield RunningWorker(child, listening.url, client, narrated)


async def worker_failure(home: Path, *flags: str, model: Path = STORYTELLER) -> tuple[int, RbeeError | None]:
    """Exit status and last word of a worker that cannot serve."""
    handshake = Handshake.from_here(api_key=KEY)
    async with running(_command(home, flags, model, None, None), handshake, lambda _: None, stop_grace_s=5) as child:
        with anyio.fail_after(15):
            return await child.wait_exit(), child.failure


def _command(
    home: Path, flags: Sequence[str], model: Path, hive_url: str | None, env: Mapping[str, str] | None
) -> Command:
    argv = [*program_argv("llm-worker-rbee"), "--model", str(model), "--port", "0", "--parent", "stdin", *flags]
    if hive_url is not None:
        argv += ["--hive-url", hive_url]
    return Command(argv, home / "worker.err", {"RBEE_HOME": str(home), **(env or {})})


def environment(home: Path, **more: str) -> dict[str, str]:
    """For workers that a test starts with `subprocess`."""
    return {**os.environ, "RBEE_HOME": str(home), **more}
