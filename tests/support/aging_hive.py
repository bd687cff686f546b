"""A hive over real HTTP, as `node update` meets one: it tells of itself, makes worker builds, and goes when it is told.

What it does is written down in a `Journal`, beside what others write there: the order of things is what counts.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from rbee_shared import sse
from rbee_shared.contracts.nodes import CpuDevice, Devices
from rbee_shared.errors import BuildFailedError
from rbee_shared.server import bind, serving, url_of
from rbee_shared.version import __version__

CPU = CpuDevice(name="EPYC", cores=8, ram_bytes=32, free_bytes=16, ram_gb=0.0)
DEVICES = Devices(cpu=CPU, models=0, workers=0)
TOKEN = "token-of-this-cluster"
ENGINE = "0.3.36"


@dataclass(frozen=True)
class Journal:
    """A file, so that programs can write in it too."""

    path: Path

    async def note(self, what: str) -> None:
        async with await anyio.Path(self.path).open("a") as file:
            await file.write(f"{what}\n")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def build(kind: str, version: str) -> dict[str, Any]:
    facts = {"id": f"{kind}-{version}", "kind": kind, "version": version, "path": f"/w/{kind}-{version}"}
    return {**facts, "python": "cp311", "platform": "linux-x86_64", "made_at_unix": 1, "source": "compiled"}


def worker(state: str) -> dict[str, Any]:
    identity = {"id": "worker-cpu-1", "url": None, "model_ref": "m", "backend": "cpu", "device": "cpu", "pid": 1}
    return {**identity, "state": state, "started_at": 1, "last_activity": 1}


@dataclass
class AgingHive:
    """`fails_builds`: it cannot make any. `stays`: it takes the order to stop, and stays."""

    journal: Journal
    version: str = __version__
    started_at: float = 2e9
    token: str = TOKEN
    queen_id: str | None = None
    standalone: bool = False
    workers: list[dict[str, Any]] = field(default_factory=list)
    builds: list[dict[str, Any]] = field(default_factory=list)
    fails_builds: bool = False
    stays: bool = False
    url: str = ""
    gone: anyio.Event = field(default_factory=anyio.Event)
    looked_at: anyio.Event = field(default_factory=anyio.Event)

    async def status(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"error": {"code": "INVALID_API_KEY", "message": "not mine"}}, 401)
        owner = {"queen_id": self.queen_id, "queen_url": "http://10.9.9.9:8080", "adopted": self.queen_id is not None}
        told = {
            "name": "mac", "version": self.version, "url": self.url, "instance": self.url,
            "started_at": self.started_at, "workers": self.workers, "builds": self.builds, "models": 0,
            "downloaded": 0, "models_dir": "/m", "disk_free_bytes": 1, "standalone": self.standalone, **owner,
        }  # fmt: skip
        self.looked_at.set()
        return JSONResponse({**told, "devices": DEVICES.model_dump()})

    async def list_builds(self) -> dict[str, Any]:
        return {"builds": self.builds}

    async def provision(self, request: Request) -> Response:
        kind = (await request.json())["kind"]
        return JSONResponse({"provision_id": kind, "events_url": f"/v1/provisions/{kind}/events"}, 202)

    async def provision_events(self, kind: str) -> Response:
        line = {"actor": "worker-builder", "action": "build", "human": f"compiling {kind}", "at_ms": 1}
        if self.fails_builds:
            last = sse.encode("error", BuildFailedError("no compiler").body())
        else:
            await self.journal.note(f"build {kind}")
            self.builds.append(build(kind, ENGINE))
            last = sse.encode("end", {"build": self.builds[-1]})
        frames = sse.numbered(1, sse.encode("narration", line)) + sse.numbered(2, last) + sse.DONE
        return Response(frames, media_type="text/event-stream")

    async def health(self) -> dict[str, str]:
        return {"program": "rbee-hive", "version": self.version, "instance": self.url}

    async def shutdown(self) -> dict[str, str]:
        await self.journal.note("stop")
        if not self.stays:
            self.gone.set()
        return {"status": "shutting_down"}

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/status", self.status, methods=["GET"], response_model=None)
        app.add_api_route("/v1/builds", self.list_builds, methods=["GET"])
        app.add_api_route("/v1/workers/provision", self.provision, methods=["POST"], response_model=None)
        app.add_api_route("/v1/provisions/{kind}/events", self.provision_events, methods=["GET"], response_model=None)
        app.add_api_route("/health", self.health, methods=["GET"])
        app.add_api_route("/shutdown", self.shutdown, methods=["POST"])
        return app


async def aging_hive(group: TaskGroup, journal: Journal, **modes: Any) -> AgingHive:
    """One that serves in `group` until it is told to go."""
    hive = AgingHive(journal, **modes)
    await group.start(_serve, hive)
    return hive


async def _serve(hive: AgingHive, *, task_status: TaskStatus[None]) -> None:
    listener = bind("127.0.0.1", 0)
    hive.url = url_of(listener)
    async with serving(hive.app(), listener, header_s=5, drain_s=0.2):
        task_status.started()
        await hive.gone.wait()
