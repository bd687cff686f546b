"""A node that follows a script: a real HTTP hive with real HTTP workers, that registers with a queen by heartbeats.

What it does wrong stands in `Script`, and may be changed while it runs. Everything lives in the test's own event loop.
"""

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from rbee_shared import sse
from rbee_shared.contracts.events import token_frame
from rbee_shared.server import bind, serving, url_of

MODEL = "builtin:scripted"
SCRIPTED_ROW = {
    "id": "scripted", "provider": "builtin", "reference": "scripted", "local_path": "/x.gguf", "size_bytes": 1,
    "downloaded_at_unix": 1,
}  # fmt: skip
BUILD_ROW = {
    "id": "cpu-builtin", "kind": "cpu", "version": "0", "python": "cp311", "platform": "linux", "made_at_unix": 1,
    "source": "environment",
}  # fmt: skip
CPU = {"name": "scripted CPU", "cores": 4, "ram_bytes": 8_000_000_000, "free_bytes": 8_000_000_000, "ram_gb": 8.0}

Answer = Callable[["ScriptedWorker", dict[str, Any]], AsyncIterator[bytes]]


def started(worker: "ScriptedWorker", job: dict[str, Any]) -> bytes:
    facts = {"job_id": job["job_id"], "model": MODEL, "worker_id": worker.id, "device": "cpu"}
    return sse.encode("started", {**facts, "started_at": "2026-01-01T00:00:00.000+00:00"})


def ended(reason: str, tokens: int) -> bytes:
    counts = {"tokens_out": tokens, "prompt_tokens": 1, "cached_tokens": 0}
    speed = {"ttft_ms": 1.0, "decode_time_ms": 1.0, "tokens_per_s": 1.0}
    return sse.encode("end", {**counts, **speed, "stop_reason": reason}) + sse.DONE


def seen(job: dict[str, Any]) -> int:
    """How many token frames, each of one id, the reader of the job has from streams before this one."""
    return len(job.get("resume", {"ids": ()})["ids"])


async def whole(worker: "ScriptedWorker", job: dict[str, Any]) -> AsyncIterator[bytes]:
    """As it should be: `script.tokens` tokens, `script.pause_s` apart, ended early by `/cancel`."""
    yield started(worker, job)
    script, cancelled = worker.script, worker.jobs[job["job_id"]]
    for number in range(seen(job), script.tokens):
        with anyio.move_on_after(script.pause_s):
            await cancelled.wait()
        if cancelled.is_set():
            yield ended("CANCELLED", number)
            return
        yield token_frame(f"t{number} ", number, [number])
    yield ended("EOS", script.tokens)


def broken(*frames: bytes) -> Answer:
    """`started` and these bytes, without the tokens that the reader has; then the stream closes."""

    async def answer(worker: "ScriptedWorker", job: dict[str, Any]) -> AsyncIterator[bytes]:
        yield started(worker, job)
        for frame in frames:
            if not _is_seen(frame, job):
                yield frame

    return answer


def _is_seen(frame: bytes, job: dict[str, Any]) -> bool:
    return any(b'"i":%d,' % number in frame for number in range(seen(job)))


def raw(*chunks: bytes) -> Answer:
    """These bytes and nothing else."""

    async def answer(_worker: "ScriptedWorker", _job: dict[str, Any]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return answer


@dataclass
class Script:
    """`ready_after_s` None: never. `refusals`: how many times `/execute` says 429 before it takes a job."""

    tokens: int = 3
    pause_s: float = 0.0
    slots: int = 1
    answer: Answer = whole
    spawn_error: dict[str, Any] | None = None
    spawn_s: float = 0.0
    ready_after_s: float | None = 0.0
    load_error: dict[str, Any] | None = None
    refusals: int = 0
    headers_s: float = 0.0
    beating: bool = True
    beat_s: float = 0.05
    provisions: dict[str, list[bytes | float | None]] = field(default_factory=dict)
    """Frames of the events of a `model` or a `build`; a number is a pause, None a broken connection."""


@dataclass
class ScriptedWorker:
    """One worker, with a port and a key of its own."""

    script: Script
    model: str = MODEL
    id: str = field(default_factory=lambda: f"worker-cpu-{secrets.token_hex(3)}")
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    url: str = ""
    state: str = "loading"
    error: dict[str, Any] | None = None
    restarts: int = 0
    last_crash: dict[str, Any] | None = None
    jobs: dict[str, anyio.Event] = field(default_factory=dict)
    executed: int = 0
    most_at_once: int = 0
    gone: anyio.Event = field(default_factory=anyio.Event)

    def record(self) -> dict[str, Any]:
        identity = {
            "id": self.id,
            "url": self.url,
            "model_ref": self.model,
            "backend": "cpu",
            "device": "cpu",
            "pid": 1,
        }
        state = "busy" if self.state == "idle" and self.jobs else self.state
        times = {"started_at": 1.0, "last_activity": 4e9}
        slots = {"slots_total": self.script.slots, "slots_busy": len(self.jobs)}
        crashes = {"restart_count": self.restarts, "error": self.error, "last_crash": self.last_crash}
        return {**identity, **times, **slots, **crashes, "state": state, "api_key": self.key}

    async def execute(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"code": "INVALID_API_KEY", "message": "not my key"}}, 401)
        job = await request.json()
        await anyio.sleep(self.script.headers_s)
        if self.script.refusals > 0 or len(self.jobs) >= self.script.slots:
            self.script.refusals -= 1
            return JSONResponse({"error": {"code": "ALL_SLOTS_BUSY", "message": "busy"}}, 429)
        self.jobs[job["job_id"]] = anyio.Event()
        self.executed += 1
        self.most_at_once = max(self.most_at_once, len(self.jobs))
        return _Slot(self, job)

    async def cancel(self, request: Request) -> Response:
        if (event := self.jobs.get((await request.json())["job_id"])) is None:
            return JSONResponse({"error": {"code": "TASK_NOT_FOUND", "message": "no such job"}}, 404)
        event.set()
        return JSONResponse({}, 202)

    async def progress(self) -> Response:
        frames = [sse.encode("progress", {"stage": "load", "done": n, "total": 2, "unit": "part"}) for n in range(3)]
        return Response(b"".join(frames) + sse.encode("end", {}), media_type="text/event-stream")

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/execute", self.execute, methods=["POST"], response_model=None)
        app.add_api_route("/cancel", self.cancel, methods=["POST"], response_model=None)
        app.add_api_route("/v1/loading/progress", self.progress, methods=["GET"], response_model=None)
        return app


class _Slot(StreamingResponse):
    """An answer; its slot is free when the response is over."""

    def __init__(self, worker: ScriptedWorker, job: dict[str, Any]) -> None:
        super().__init__(worker.script.answer(worker, job), media_type="text/event-stream")
        self._jobs, self._job_id = worker.jobs, job["job_id"]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._jobs.pop(self._job_id, None)


@dataclass
class ScriptedNode:
    """The hive. `kill` ends a worker as a crash does; `vanish` ends the heartbeats."""

    queen_url: str
    token: str
    group: TaskGroup
    script: Script
    name: str = "localhost"
    hive_id: str = field(default_factory=lambda: f"hive-{secrets.token_hex(4)}")
    url: str = ""
    workers: dict[str, ScriptedWorker] = field(default_factory=dict)
    spawned: int = 0
    stopped: list[str] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    provisions: list[str] = field(default_factory=list)
    provision_readers: list[int] = field(default_factory=list)
    fetched: list[dict[str, Any]] = field(default_factory=list)
    left: anyio.Event = field(default_factory=anyio.Event)
    _seq: int = 0
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def worker(self) -> ScriptedWorker:
        """The one that runs."""
        (worker,) = [worker for worker in self.workers.values() if worker.state == "idle"]
        return worker

    async def spawn(self, request: Request) -> Response:
        order = await request.json()
        await anyio.sleep(self.script.spawn_s)
        self.spawned += 1
        if self.script.spawn_error:
            return JSONResponse({"error": self.script.spawn_error}, 503)
        worker = ScriptedWorker(self.script, order["model"])
        self.workers[worker.id] = worker
        self.group.start_soon(self._run_worker, worker)
        return JSONResponse({"worker_id": worker.id, "state": "starting"}, 202)

    async def _run_worker(self, worker: ScriptedWorker) -> None:
        listener = bind("127.0.0.1", 0)
        worker.url = url_of(listener)
        async with serving(worker.app(), listener, header_s=5, drain_s=0.1):
            if self.script.ready_after_s is None:
                await worker.gone.wait()
                return
            await anyio.sleep(self.script.ready_after_s)
            worker.error = self.script.load_error
            worker.state = "failed" if worker.error else "idle"
            self._changed.set()
            await worker.gone.wait()

    def crash(self, worker: ScriptedWorker, error: dict[str, Any], *, back_after_s: float) -> None:
        """It dies of `error`, and comes back as another process."""
        worker.gone.set()
        worker.gone = anyio.Event()
        worker.restarts, worker.error, worker.last_crash = worker.restarts + 1, error, error
        worker.state, worker.url, worker.key = "starting", "", secrets.token_hex(16)
        self._changed.set()
        self.group.start_soon(self._run_again, worker, back_after_s)

    async def _run_again(self, worker: ScriptedWorker, after_s: float) -> None:
        with anyio.move_on_after(after_s):
            await worker.gone.wait()
            return
        worker.error = None
        await self._run_worker(worker)

    def kill(self, worker: ScriptedWorker, error: dict[str, Any]) -> None:
        """It dies of `error`: its connections break, its record says why."""
        worker.state, worker.error = "failed", error
        worker.gone.set()
        self._changed.set()

    async def stop_worker(self, worker_id: str) -> dict[str, str]:
        self.stopped.append(worker_id)
        self.workers[worker_id].state = "stopped"
        self.workers[worker_id].gone.set()
        return {}

    async def capacity(self) -> Response:
        numbers = {"model": "m", "device": "cpu", "fits": True, "basis": "size", "weights_bytes": 9}
        told = json.dumps({**numbers, "required_bytes": 10, "free_bytes": 100})
        return Response(status_code=204, headers={"X-Rbee-Capacity": told})

    async def models(self, model: str | None = None) -> dict[str, Any]:
        rows = [SCRIPTED_ROW, *self.fetched]
        known = {"scripted", MODEL, *(row["id"] for row in self.fetched)}
        return {"models": rows if model is None else rows[:1] if model in known else []}

    async def provision(self, request: Request) -> Response:
        """Done at once, unless the script says what its events are."""
        body = await request.json()
        what = "model" if "model" in body else "build"
        self.provisions.append(what)
        events = self.script.provisions.get(what)
        known = "model" in body and body["model"] in {"scripted", MODEL}
        path = f"/v1/provisions/{what}{'' if known or events is None else '-scripted'}/events"
        answer = {"provision_id": what, "events_url": path, "done": known or events is None}
        return JSONResponse(answer, 202)

    async def provision_events(self, what: str, request: Request) -> Response:
        frames = self.script.provisions.get(what.removesuffix("-scripted")) if what.endswith("-scripted") else None
        if frames is None:
            end = {"model": SCRIPTED_ROW} if what == "model" else {"build": BUILD_ROW}
            return Response(sse.numbered(1, sse.encode("end", end)) + sse.DONE, media_type="text/event-stream")
        after = int(request.headers.get("last-event-id", "0"))
        self.provision_readers.append(after)

        async def stream() -> AsyncIterator[bytes]:
            for number, frame in enumerate(frames, 1):
                if frame is None and number > after:  # the connection breaks here
                    frames[number - 1] = sse.PING
                    return
                if isinstance(frame, float):
                    await anyio.sleep(frame)
                elif number > after and frame is not None:
                    yield sse.numbered(number, frame)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def devices(self) -> dict[str, Any]:
        return {"cpu": CPU, "gpus": [], "models": 1, "workers": len(self.workers)}

    async def listing(self) -> dict[str, Any]:
        return {"workers": [worker.record() for worker in self.workers.values()]}

    async def events(self) -> Response:
        async def silence() -> AsyncIterator[bytes]:
            yield sse.PING
            await self.left.wait()

        return StreamingResponse(silence(), media_type="text/event-stream")

    async def leave(self) -> dict[str, str]:
        """`/shutdown`: it falls silent, which is all that a queen can see of it."""
        self.script.beating = False
        return {"status": "shutting_down"}

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/workers/spawn", self.spawn, methods=["POST"], response_model=None)
        app.add_api_route("/v1/workers/{worker_id}/stop", self.stop_worker, methods=["POST"])
        app.add_api_route("/v1/capacity", self.capacity, methods=["GET"], response_model=None)
        app.add_api_route("/v1/models", self.models, methods=["GET"])
        app.add_api_route("/v1/models/provision", self.provision, methods=["POST"], response_model=None)
        app.add_api_route("/v1/workers/provision", self.provision, methods=["POST"], response_model=None)
        app.add_api_route("/v1/provisions/{what}/events", self.provision_events, methods=["GET"], response_model=None)
        app.add_api_route("/v1/devices", self.devices, methods=["GET"])
        app.add_api_route("/v1/workers/list", self.listing, methods=["GET"])
        app.add_api_route("/v1/events", self.events, methods=["GET"], response_model=None)
        app.add_api_route("/shutdown", self.leave, methods=["POST"])
        return app

    def heartbeat(self) -> dict[str, Any]:
        self._seq += 1
        workers = [worker.record() for worker in self.workers.values()]
        identity = {"hive_id": self.hive_id, "name": self.name, "url": self.url, "version": "0", "seq": self._seq}
        return {**identity, "workers": workers}

    async def beat(self) -> None:
        """One heartbeat, answered."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(timeout=10, trust_env=False, verify=False) as client:
            answer = await client.post(f"{self.queen_url}/v1/heartbeat", json=self.heartbeat(), headers=headers)
        if answer.status_code != 200:
            self.refused.append(answer.json()["error"])

    async def keep_beating(self) -> None:
        while True:
            if self.script.beating:
                with suppress(httpx2.TransportError, ValueError):  # the queen has gone: the test sees that by itself
                    await self.beat()
            with anyio.move_on_after(self.script.beat_s):
                await self._changed.wait()
            self._changed = anyio.Event()


@asynccontextmanager
async def scripted_node(
    queen_url: str, token: str, script: Script, name: str = "localhost"
) -> AsyncGenerator[ScriptedNode]:
    """A node that the queen has heard of."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(anyio.create_task_group())
        node = ScriptedNode(queen_url, token, group, script, name)
        listener = bind("127.0.0.1", 0)
        node.url = url_of(listener)
        await stack.enter_async_context(serving(node.app(), listener, header_s=5, drain_s=0.1))
        await node.beat()
        group.start_soon(node.keep_beating)
        try:
            yield node
        finally:
            node.left.set()
            for worker in node.workers.values():
                worker.gone.set()
            group.cancel_scope.cancel()
