"""The nodes of the scripted queen: her catalog, what she does with them, and the hives that she stands before.

`mac` is awake, `pc` sleeps until an order wakes it, `gone` cannot be reached; an action on `refuses-CODE` is answered
with that code, on `fails-CODE` its stream ends with it. What happens to the queen herself is a flag of `fake_queen`.
"""

import argparse
import os
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from rbee_shared import sse
from rbee_shared.contracts.hives import DeviceTest, DiskTest, FarewellList, HiveStatus, SelfTest, WorkerFarewell
from rbee_shared.contracts.models import ModelList, ModelRow, Removal
from rbee_shared.contracts.nodes import CpuDevice, Devices, GpuDevice, NodeFault, NodeOutcome, NodeState, NodeView
from rbee_shared.contracts.provisions import BuildList, BuildRow, ProvisionAnswer, ProvisionEnd
from rbee_shared.contracts.workers import SpawnAnswer, WorkerList, WorkerRecord, WorkerState
from rbee_shared.errors import (
    ModelNotFoundError,
    NodeNotFoundError,
    NodeUnreachableError,
    NotFoundError,
    RbeeError,
    ShuttingDownError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
    WorkerNotFoundError,
    error_from_body,
)
from rbee_shared.narration import Narration, Narrator, Sink
from rbee_shared.sse_response import EventStream

GB = 1_000_000_000
NEW_KEY = "SHA256:" + "n" * 43
OLD_KEY = "SHA256:" + "o" * 43
HOSTILE = "\x1b[31mred\x07\nsecond"
API_KEY = "worker-key-that-nobody-may-see"
CPU = CpuDevice(name="EPYC", cores=8, ram_bytes=32 * GB, free_bytes=16 * GB, ram_gb=32.0)
GPU = GpuDevice(
    id="gpu0", backend="metal", index=0, name="Apple M2", vram_bytes=24 * GB, free_bytes=20 * GB, vram_gb=24.0,
    utilisation_pct=7.0,
)  # fmt: skip
DEVICES = Devices(cpu=CPU, gpus=(GPU,), models=2, workers=1)
BUILD = BuildRow(
    id="metal-0.3.36", kind="metal", version="0.3.36", path="/w", backends=("metal",), python="3.11",
    platform="macos", made_at_unix=1, source="compiled",
)  # fmt: skip
TINY = ModelRow(
    id="tinyllama", name="TinyLlama 1.1B Chat", provider="hf", reference="o/r", local_path="/m/t.gguf",
    size_bytes=2_200_000_000, quant="Q4_K_M",
)  # fmt: skip
PHI = ModelRow(id="phi3", name="Phi-3 Mini", provider="hf", reference="o/phi")
Note = Callable[..., None]


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", action="store_true", help="she knows mac, pc and gone")
    parser.add_argument("--key", choices=["unknown", "changed"], help="what she finds where an order names no key")
    parser.add_argument("--action-s", type=float, default=0.0, help="an action takes that long")
    parser.add_argument("--leave", action="store_true", help="SHUTTING_DOWN to every action, and go")
    parser.add_argument("--break-action", choices=["truncate", "die", "garbage"], help="instead of its end")
    parser.add_argument("--provision-s", type=float, default=0.0, help="a download or build takes that long")
    parser.add_argument("--break-provision", choices=["truncate", "die"], help="instead of its end")
    parser.add_argument("--load-s", type=float, default=0.0, help="a worker takes that long to be ready")
    parser.add_argument("--stop-all-error", help="the worker's farewell carries this code")
    parser.add_argument("--sick", action="store_true", help="the self-test finds something")
    parser.add_argument("--nonsense", action="store_true", help="hives answer what nobody understands")
    parser.add_argument("--stop-hive-orders", action="store_true", help="SHUTTING_DOWN from the hive itself")


class FakeNodes:
    def __init__(self, args: argparse.Namespace, note: Note, publish: Sink, leave: Callable[[], None]) -> None:
        self.args = args
        self.note = note
        self.leave = leave
        self.publish = publish
        self.narrator = Narrator("queen", publish)
        self.awake = {"mac"}
        self.models: dict[str, dict[str, ModelRow]] = {}
        self.workers: dict[str, dict[str, WorkerRecord]] = {"mac": {"w1": worker("w1", "tinyllama")}}

    def router(self) -> APIRouter:
        router = APIRouter()
        router.get("/v2/nodes")(self.all)
        router.post("/v2/nodes")(self.add)
        router.get("/v2/nodes/{name}")(self.one)
        router.delete("/v2/nodes/{name}")(self.remove)
        router.api_route("/v2/nodes/{name}/pool/{rest:path}", methods=["GET", "POST", "DELETE"])(self.pool)
        router.post("/v2/nodes/{name}/{action}")(self.act)
        return router

    async def all(self) -> dict[str, Any]:
        if self.args.cluster:
            return {"nodes": [self.view(name).model_dump(mode="json") for name in ("mac", "pc", "gone")]}
        devices = Devices(cpu=CPU, models=1, workers=1).model_dump(mode="json")
        return {"nodes": [{"name": "local\x1bhost", "state": "online", "devices": devices, "workers": 1}]}

    def view(self, name: str) -> NodeView:
        name = name.removesuffix(".home.arpa")
        if name not in {"mac", "pc", "gone", "localhost"}:
            raise NodeNotFoundError(f"there is no node {name}")
        awake = name in self.awake or name == "localhost"
        fault = NodeFault(code="SSH_UNREACHABLE", message=f"no route {HOSTILE}", hint="switch it on", at_ms=2)
        return NodeView(
            name=name,
            transport="local" if name == "localhost" else "ssh",
            state=NodeState.ONLINE if awake else NodeState.OFFLINE,
            host=f"{name}.home.arpa",
            port=2222,
            user="rita",
            version="0.1.0" if awake else None,
            last_seen_ms=1,
            last_error=fault if name == "gone" else None,
            devices=DEVICES.model_dump(mode="json") if awake else None,
        )

    async def one(self, name: str) -> NodeView:
        return self.view(name)

    async def add(self, request: Request) -> Response:
        return await self._action("add", (await request.json())["name"], request)

    async def remove(self, name: str, request: Request) -> Response:
        return await self._action("remove", name, request)

    async def act(self, name: str, action: str, request: Request) -> Response:
        return await self._action(action, name, request)

    async def _action(self, action: str, name: str, request: Request) -> Response:
        body = await request.json() if await request.body() else {}
        self.note("action", action=action, node=name, body=body)
        if self.args.leave:
            self.leave()
            raise ShuttingDownError("the queen is shutting down", source="queen-rbee")
        if name.startswith("refuses-"):
            raise scripted(name.removeprefix("refuses-"))
        if action != "add" and not name.startswith("fails-"):
            self.view(name)
        lines: list[Narration] = []
        Narrator("queen", lines.append).tell(action, f"{action} {name}: {HOSTILE}")
        self.publish(lines[0])  # as the real one does: to the whole cluster, and to whoever asked
        return EventStream(self._act(action, name, body, lines[0]), slow_client_s=60)

    async def _act(self, action: str, name: str, body: dict[str, Any], line: Narration) -> AsyncGenerator[bytes]:
        ended = False
        try:
            yield sse.encode("narration", line.to_dict())
            yield sse.encode("progress", {"stage": "build", "done": 1, "total": 2, "unit": "%"})
            await anyio.sleep(self.args.action_s)
            ended = True
            yield self._end_of_action(action, name, body)
        finally:
            self.note("action_ended" if ended else "action_hung_up", action=action)

    def _end_of_action(self, action: str, name: str, body: dict[str, Any]) -> bytes:
        if self.args.break_action:
            return broken(self.args.break_action)
        if name.startswith("fails-"):
            return failed(scripted(name.removeprefix("fails-")))
        if self.args.key and not body.get("fingerprint") and action in {"add", "trust"}:
            return failed(self._key_error(name))
        if action == "start":
            self.awake.add(name)
        shown = "mac" if action == "add" else name
        facts = {"version": "0.1.0", "hostile": HOSTILE, "ok": True, "steps": ["a", "b"]}
        outcome = NodeOutcome(node=self.view(shown), facts=facts)
        return sse.encode("end", outcome.model_dump(mode="json")) + sse.DONE

    def _key_error(self, name: str) -> RbeeError:
        details = {"host": f"{name}.home.arpa", "port": 22, "key_type": "ssh-ed25519", "fingerprint": NEW_KEY}
        if self.args.key == "changed":
            return SshHostKeyChangedError("the key has changed", details={**details, "known_fingerprint": OLD_KEY})
        return SshHostKeyUnknownError("the key is not known", details=details)

    async def pool(self, name: str, rest: str, request: Request) -> Response:
        body = await request.json() if await request.body() else {}
        self.note("pool", node=name, method=request.method, path=rest, body=body, query=dict(request.query_params))
        node = self.view(name).name
        if node == "gone":
            raise NodeUnreachableError("gone.home.arpa: no route to host", hint="switch it on")
        if node not in self.awake and node != "localhost":
            if request.method == "GET":
                raise NodeUnreachableError(f"the hive at {node} is asleep")
            self.narrator.tell("wake", f"waking the hive at {node} over SSH")
            self.awake.add(node)
        if self.args.nonsense:
            return JSONResponse({"workers": "many", "models": [{"id": 5}]})
        if self.args.stop_hive_orders and request.method != "GET":
            raise ShuttingDownError("the hive is shutting down", source=f"rbee-hive@{node}")
        return await FakeHive(self, node).answer(request.method, rest, body, dict(request.query_params))


class FakeHive:
    def __init__(self, nodes: FakeNodes, node: str) -> None:
        self.args = nodes.args
        self.note = nodes.note
        self.narrator = nodes.narrator
        self.node = node
        self.models = nodes.models.setdefault(node, {row.id: row for row in (TINY, PHI)})
        self.workers = nodes.workers.setdefault(node, {})

    async def answer(self, method: str, path: str, body: dict[str, Any], query: dict[str, str]) -> Response:
        parts = path.removeprefix("v1/").split("/")
        if method == "GET" and parts[0] == "provisions":
            return EventStream(self._provision(parts[1]), slow_client_s=60)
        if method == "GET":
            return wire(self._read(parts[0], query))
        if method == "DELETE":
            return wire(BUILD if parts[0] == "builds" else self._removed(parts[1], files=query["files"] == "true"))
        if parts[-1] == "provision":
            return wire(ProvisionAnswer(provision_id="p", events_url=f"/v1/provisions/{parts[0]}/events"), 202)
        return await self._order(parts, body, query)

    async def _order(self, parts: list[str], body: dict[str, Any], query: dict[str, str]) -> Response:
        if parts == ["models", "register"]:
            row = ModelRow(id=body["id"], name=body.get("name", ""), provider="hf", reference=body["repo"])
            self.models[row.id] = row
            return wire(row, 201)
        if parts == ["selftest"]:
            return wire(self._self_test())
        if parts[0] != "workers":
            raise NotFoundError("/".join(parts))
        return await self._worker(parts[1:], body, query)

    def _read(self, what: str, query: dict[str, str]) -> Any:
        if what == "models":
            rows = tuple(row for row in self.models.values() if query.get("model", row.id) == row.id)
            return ModelList(models=rows)
        if what == "builds":
            return BuildList(builds=(BUILD,))
        if what == "workers":
            return WorkerList(workers=tuple(self.workers.values()))
        return HiveStatus(
            name=self.node, version="0.1.0", url="http://127.0.0.1:9200", instance="i", started_at=1, devices=DEVICES,
            workers=tuple(self.workers.values()), models=2, downloaded=1, builds=(BUILD,), models_dir="/m",
            disk_free_bytes=100 * GB,
        )  # fmt: skip

    def _removed(self, model: str, *, files: bool) -> Removal:
        if self.models.pop(model, None) is None:
            raise ModelNotFoundError(f"no {model}")
        return Removal(id=model, files_removed=("/m/t.gguf",) if files else (), freed_bytes=GB if files else 0)

    async def _provision(self, what: str) -> AsyncGenerator[bytes]:
        ended = False
        try:
            for done in (0, 40, 100):
                stage = "download" if what == "models" else "build"
                data = {"stage": stage, "done": done * 10_000_000, "total": GB, "unit": "bytes", "per_s": 45_000_000}
                yield sse.encode("progress", data)
                await anyio.sleep(self.args.provision_s / 3)
            ended = True
            if self.args.break_provision:
                yield broken(self.args.break_provision)
                return
            end = ProvisionEnd(model=TINY, bytes_fetched=GB) if what == "models" else ProvisionEnd(build=BUILD)
            yield sse.encode("end", end.model_dump(mode="json")) + sse.DONE
        finally:
            self.note("provisioned" if ended else "provision_hung_up", node=self.node)

    async def _worker(self, order: list[str], body: dict[str, Any], query: dict[str, str]) -> Response:
        if order == ["stop-all"]:
            gone = tuple(self._stopped(worker_id) for worker_id in tuple(self.workers))
            return wire(FarewellList(workers=gone))
        if order[1:] == ["stop"]:
            return wire(self._stopped(order[0]))
        worker_id = f"worker-{body['backend']}-1"
        self.workers[worker_id] = worker(worker_id, body["model"])
        if query.get("wait") != "ready":
            self.narrator.tell("load", f"loading model for {worker_id}")
            return wire(SpawnAnswer(worker_id=worker_id, state=WorkerState.STARTING), 202)
        await anyio.sleep(self.args.load_s)
        return wire(SpawnAnswer(worker_id=worker_id, state=WorkerState.IDLE, url="http://127.0.0.1:8001"), 201)

    def _stopped(self, worker_id: str) -> WorkerFarewell:
        if self.workers.pop(worker_id, None) is None:
            raise WorkerNotFoundError(f"no {worker_id}")
        error = scripted(self.args.stop_all_error).body() if self.args.stop_all_error else None
        return WorkerFarewell(worker_id=worker_id, state=WorkerState.STOPPED, error=error)

    def _self_test(self) -> SelfTest:
        error = scripted("BACKEND_UNAVAILABLE").body() if self.args.sick else None
        tests = (
            DeviceTest(id="gpu0", backend="metal", build="metal-0.3.36", ok=True, seconds=1.5),
            DeviceTest(id="cpu", backend="cpu", ok=not self.args.sick, error=error),
        )
        disk = DiskTest(models_dir="/m", free_bytes=100 * GB, ok=True)
        return SelfTest(ok=not self.args.sick, devices=tests, disk=disk)


def worker(worker_id: str, model: str) -> WorkerRecord:
    return WorkerRecord(
        id=worker_id, url="http://127.0.0.1:8001", model_ref=model, backend="metal", device="gpu0",
        state=WorkerState.IDLE, pid=12345, started_at=1, last_activity=1, api_key=API_KEY,
    )  # fmt: skip


def wire(answer: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(answer.model_dump(mode="json"), status_code=status)


def scripted(code: str) -> RbeeError:
    return error_from_body({"code": code, "message": f"scripted {HOSTILE}", "hint": "do something else"})


def failed(error: RbeeError) -> bytes:
    return sse.encode("error", error.body()) + sse.DONE


def broken(how: str) -> bytes:
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return b"event: end\ndata: {nonsense\n\n" if how == "garbage" else b": cut off\n\n"
