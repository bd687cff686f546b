"""A real hive, started as an operator starts it or as a queen does, and a queen's side that can fall silent."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import psutil
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from tests.support.cluster import NO_HUB

from rbee_shared.handshake import Handshake
from rbee_shared.programs import program_argv
from rbee_shared.server import bind, serving, url_of

TOKEN = "test-token-0123456789abcdef"
_START_S = 30.0
_STOP_S = 20.0


@dataclass
class LiveHive:
    """A hive that runs, and how to talk to it."""

    url: str
    process: "subprocess.Popen[bytes]"
    home: Path
    client: httpx2.AsyncClient
    stderr: Path

    async def status(self) -> dict[str, Any]:
        return dict((await self.send("GET", "/v1/status")).json())

    async def adopt(self, **order: object) -> tuple[int, dict[str, Any]]:
        """The status of `POST /v1/adopt`, and the error if it is one."""
        answer = await self.send("POST", "/v1/adopt", order)
        return answer.status_code, answer.json().get("error") or {}

    async def send(
        self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, content: bytes | None = None
    ) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = content if content is not None else None if body is None else json.dumps(body).encode()
        return await self.client.request(method, self.url + path, content=data, headers=headers)

    async def spawn(self, model: str = "builtin:storyteller", **more: object) -> dict[str, Any]:
        """A worker that serves."""
        answer = await self.send("POST", "/v1/workers/spawn?wait=ready", {"model": model, **more})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def workers(self) -> list[dict[str, Any]]:
        return list((await self.send("GET", "/v1/workers/list")).json()["workers"])

    async def worker(self, worker_id: str) -> dict[str, Any]:
        return next(worker for worker in await self.workers() if worker["id"] == worker_id)

    async def exit_code(self, within_s: float = _STOP_S) -> int:
        with anyio.fail_after(within_s):
            return await anyio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


@asynccontextmanager
async def operators_hive(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncGenerator[LiveHive]:
    """`rbee-hive daemon … < /dev/null`, ended with SIGTERM if the test has not ended it."""
    stderr = home / f"hive-{os.urandom(3).hex()}.stderr"
    process = await anyio.to_thread.run_sync(_start, home, stderr, arguments, env or {})
    try:
        url = await _published_url(home, process)
        async with httpx2.AsyncClient(timeout=60, trust_env=False, verify=False) as client:
            yield LiveHive(url, process, home, client, stderr)
    finally:
        await anyio.to_thread.run_sync(_end, process)


@asynccontextmanager
async def remote_hive(
    home: Path, handshake: Handshake, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncGenerator[LiveHive]:
    """`rbee-hive daemon --parent ssh …` as an SSH server starts it; the test holds its pipes."""
    stderr = home / "hive.stderr"
    process = await anyio.to_thread.run_sync(_start_remote, home, stderr, handshake, arguments, env or {})
    try:
        url = await _published_url(home, process)
        async with httpx2.AsyncClient(timeout=60, trust_env=False, verify=False) as client:
            yield LiveHive(url, process, home, client, stderr)
    finally:
        await anyio.to_thread.run_sync(_end, process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _start_remote(
    home: Path, stderr: Path, handshake: Handshake, arguments: Sequence[str], env: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    home.mkdir(mode=0o700, exist_ok=True)
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            [*program_argv("rbee-hive"), "daemon", "--parent", "ssh", *(arguments or ("--port", "0"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, bufsize=0,
            env=_environment(home, env),
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(handshake.line())
    return process


def _start(home: Path, stderr: Path, arguments: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    home.mkdir(mode=0o700, exist_ok=True)
    token_file = home / "token"
    if not token_file.exists():
        token_file.touch(0o600)
        token_file.write_text(TOKEN)
    with stderr.open("wb") as out:
        return subprocess.Popen(
            [*program_argv("rbee-hive"), "daemon", "--port", "0", *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=_environment(home, env),
        )  # fmt: skip


def _environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **NO_HUB, "RBEE_HOME": str(home), "RBEE_HIVE_WORKER_PORT": "0", **more}


async def _published_url(home: Path, process: "subprocess.Popen[bytes]") -> str:
    path = home / "run" / socket.gethostname() / "rbee-hive.json"
    with anyio.fail_after(_START_S):
        while True:
            try:
                facts = json.loads(path.read_text())
            except (OSError, ValueError):
                assert process.poll() is None, "the hive died at start-up"
            else:
                if facts["pid"] == process.pid:
                    return str(facts["url"])
            await anyio.sleep(0.02)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(_STOP_S)


async def gone(pid: int, within_s: float) -> bool:
    """Whether that process has ended within the time."""
    with anyio.move_on_after(within_s):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await anyio.sleep(0.02)
        return True
    return False


@dataclass
class QueensSide:
    """What a queen answers to hives, and what she heard. `silent`: errors only; `hangs`: not even those."""

    url: str = ""
    epoch: int = 1
    silent: bool = False
    hangs: bool = False
    reached: int = 0
    beats: list[dict[str, Any]] = field(default_factory=list)
    ready: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    async def heard(self, count: int, within_s: float = 10) -> None:
        with anyio.fail_after(within_s):
            while len(self.beats) < count:  # noqa: ASYNC110
                await anyio.sleep(0.02)


@asynccontextmanager
async def queens_side() -> AsyncGenerator[QueensSide]:
    """A server for `/v1/heartbeat` and `/v1/orchestrator/worker-ready`."""
    side, app = QueensSide(), FastAPI()

    @app.post("/v1/heartbeat")
    async def heartbeat(request: Request) -> JSONResponse:
        side.reached += 1
        while side.hangs:  # noqa: ASYNC110 - a test turns it on and off as it likes
            await anyio.sleep(0.02)
        if side.silent:
            return JSONResponse({"error": {"code": "SHUTTING_DOWN", "message": "silent"}}, 503)
        side.beats.append(await request.json())
        side.tokens.add(request.headers.get("authorization"))
        return JSONResponse({"epoch": side.epoch, "adopted": True})

    @app.post("/v1/orchestrator/worker-ready")
    async def ready(request: Request) -> JSONResponse:
        side.tokens.add(request.headers.get("authorization"))
        side.ready.append({**await request.json(), "correlation_id": request.headers.get("x-correlation-id")})
        return JSONResponse({"status": "ok"})

    listener = bind("127.0.0.1", 0)
    side.url = url_of(listener)
    async with serving(app, listener, header_s=5, drain_s=1):
        yield side
