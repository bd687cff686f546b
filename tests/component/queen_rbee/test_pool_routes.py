"""`/v2/nodes/{name}/pool/…` with a server in a hive's place: what a question waits for, what a reader leaves open."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from typing_extensions import override

from queen_rbee.dependencies import get_services
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry, HiveRegistry
from queen_rbee.pool_proxy import Answer, Call, PoolProxy
from queen_rbee.reach import Callback, Reach
from queen_rbee.relay import token_client
from queen_rbee.routes import pool
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.nodes import NodeState
from rbee_shared.errors import NodeUnreachableError
from rbee_shared.http_app import new_app
from rbee_shared.server import bind, serving, url_of

TOKEN = "the-token-of-this-cluster"
STREAM, BYTES = "/v1/events", "/v1/logs"


@dataclass
class Link(Reach):
    """A connection that is there, or comes back when `back` is set; `lost`: it never does."""

    is_away: bool = False
    lost: bool = False
    back: anyio.Event = field(default_factory=anyio.Event)

    @property
    @override
    def callback(self) -> Callback:
        return Callback("http://queen")

    @property
    @override
    def is_coming_back(self) -> bool:
        return self.is_away

    @override
    async def url(self, url: str) -> str:
        await self.back.wait()
        self.is_away = False
        if self.lost:
            raise NodeUnreachableError("the SSH connection to mac did not come back")
        return url


@dataclass(frozen=True)
class Keeping(PoolProxy):
    """Holds on to what it has handed out: nothing is let go by being forgotten."""

    kept: list[Answer]

    @override
    async def pass_on(self, entry: HiveEntry, call: Call) -> Answer:
        answer = await super().pass_on(entry, call)
        self.kept.append(answer)
        return answer


@dataclass
class Bench:
    """The queen's route, what it knows of `mac`, and the server there: how many of its streams are read now."""

    app: FastAPI
    client: httpx2.AsyncClient
    hives: HiveRegistry
    lock: anyio.Lock
    hive_url: str
    readers: list[str]
    awoken: list[str] = field(default_factory=list)
    handed_out: list[Answer] = field(default_factory=list)

    def know(self, state: NodeState, link: Link | None = None, *, url: str | None = None) -> HiveEntry:
        entry = HiveEntry("mac", self.hive_url if url is None else url, link or Link(), 1, own_url=self.hive_url)
        entry.state = state
        return self.hives.put(entry)

    async def ask(self, method: str = "GET") -> tuple[int, str]:
        """The status, and the hive's answer or the error's message."""
        with anyio.fail_after(20):
            answer = await self.client.request(method, "/v2/nodes/mac/pool/v1/status")
        said = answer.json()
        return answer.status_code, said["error"]["message"] if "error" in said else said["hive"]

    async def ask_and_hang_up(self, path: str) -> None:
        """Be gone by the time the answer could begin."""
        headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"host", b"127.0.0.1")]
        target = f"/v2/nodes/mac/pool{path}"
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": target, "raw_path": target.encode(), "query_string": b"", "root_path": "",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            await anyio.lowlevel.checkpoint()

        with anyio.fail_after(20):
            await self.app(scope, receive, send)

    async def nobody_reads(self) -> None:
        with anyio.fail_after(10):
            while self.readers:  # noqa: ASYNC110 - only the server knows
                await anyio.sleep(0.01)


def _hive(readers: list[str]) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/status")
    @app.post("/v1/status")
    async def status() -> dict[str, str]:
        return {"hive": "here"}

    async def forever(path: str) -> AsyncIterator[bytes]:
        readers.append(path)
        try:
            while True:
                yield b": ping\n\n"
                await anyio.sleep(0.05)
        finally:
            readers.remove(path)

    @app.get(STREAM)
    async def events() -> StreamingResponse:
        return StreamingResponse(forever(STREAM), media_type="text/event-stream")

    @app.get(BYTES)
    async def logs() -> StreamingResponse:
        return StreamingResponse(forever(BYTES), media_type="application/octet-stream")

    return app


@pytest.fixture
async def bench() -> AsyncGenerator[Bench]:
    async with _benched() as bench:
        yield bench


@asynccontextmanager
async def _benched() -> AsyncGenerator[Bench]:
    readers: list[str] = []
    there, here = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    hives, lock, app = HiveRegistry(anyio.current_time), anyio.Lock(), new_app("q", "0", source="queen-rbee", body_s=5)
    app.include_router(pool.router)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        serving(_hive(readers), there, header_s=5, drain_s=0.1),
        serving(app, here, header_s=5, drain_s=0.1),
        token_client(connect_s=5, silence_s=20) as session,
        httpx2.AsyncClient(base_url=url_of(here), headers=headers, timeout=20, trust_env=False, verify=False) as client,
    ):
        bench = Bench(app, client, hives, lock, url_of(there), readers)
        app.dependency_overrides[get_services] = lambda: _services(bench, session)
        yield bench


def _services(bench: Bench, session: Any) -> SimpleNamespace:
    """What the route asks the queen for."""
    identity = SimpleNamespace(token=TOKEN)
    contacts = SimpleNamespace(identity=identity, lock=lambda _: bench.lock)

    async def look_up(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name)

    async def awake(name: str, *_: object) -> HiveEntry:
        assert bench.lock.locked()
        bench.awoken.append(name)
        return bench.hives.get(name) or bench.know(NodeState.ONLINE)

    return SimpleNamespace(
        identity=identity, contacts=contacts, hives=bench.hives, narrator=None,
        nodes=SimpleNamespace(directory=SimpleNamespace(look_up=look_up)), lifecycle=SimpleNamespace(awake=awake),
        daemon=SimpleNamespace(clocks=Clocks()),
        pool=Keeping(cast("HiveContacts", contacts), session, 20.0, bench.handed_out),
    )  # fmt: skip


async def test_a_hive_that_is_up_answers(bench: Bench) -> None:
    for state in (NodeState.ONLINE, NodeState.SUSPECT):
        bench.know(state)
        assert await bench.ask() == (200, "here")
    assert bench.awoken == []


async def test_a_question_wakes_nobody_and_says_what_is_the_matter(bench: Bench) -> None:
    assert await bench.ask() == (502, "the hive at mac is asleep")
    bench.know(NodeState.OFFLINE)
    assert await bench.ask() == (502, "the hive at mac has gone silent")
    bench.know(NodeState.DRAINING)
    assert await bench.ask() == (502, "the hive at mac is being stopped")
    assert bench.awoken == []


async def _ask_meanwhile(bench: Bench, meanwhile: Any) -> tuple[int, str]:
    """The answer to a question that is asked before `meanwhile`, and still open when it begins."""
    answers: list[tuple[int, str]] = []

    async def ask() -> None:
        answers.append(await bench.ask())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.3)
        assert answers == []
        await meanwhile()
    return answers[0]


@pytest.mark.parametrize("comes_up", [True, False])
async def test_a_question_waits_for_a_hive_that_is_starting(bench: Bench, comes_up: bool) -> None:
    entry = bench.know(NodeState.STARTING, url="")
    await bench.lock.acquire()

    async def end_of_start() -> None:
        if comes_up:
            entry.url, entry.state = bench.hive_url, NodeState.ONLINE
        else:
            bench.hives.remove(entry)
        bench.lock.release()

    expected = (200, "here") if comes_up else (502, "the hive at mac is asleep")
    assert await _ask_meanwhile(bench, end_of_start) == expected


async def test_a_question_waits_for_a_connection_that_is_coming_back_and_asks_who_is_there_then(bench: Bench) -> None:
    link = Link(is_away=True)
    entry = bench.know(NodeState.SUSPECT, link, url="http://127.0.0.1:1")

    async def back() -> None:
        entry.url = bench.hive_url
        link.back.set()

    assert await _ask_meanwhile(bench, back) == (200, "here")


async def test_a_connection_that_does_not_come_back_is_said(bench: Bench) -> None:
    link = Link(is_away=True, lost=True)
    bench.know(NodeState.SUSPECT, link)

    async def lost() -> None:
        link.back.set()

    assert await _ask_meanwhile(bench, lost) == (502, "the SSH connection to mac did not come back")


@pytest.mark.parametrize("state", [None, *NodeState])
async def test_an_order_goes_through_the_lock_whatever_the_hive_does(bench: Bench, state: NodeState | None) -> None:
    if state is not None:
        bench.know(state)
    await bench.lock.acquire()
    answers: list[tuple[int, str]] = []

    async def order() -> None:
        answers.append(await bench.ask("POST"))

    async with anyio.create_task_group() as group:
        group.start_soon(order)
        await anyio.sleep(0.2)
        assert (answers, bench.awoken) == ([], [])
        bench.lock.release()
    assert (answers, bench.awoken) == ([(200, "here")], ["mac"])


@pytest.mark.parametrize("path", [STREAM, BYTES])
async def test_a_reader_who_is_gone_before_the_first_byte_leaves_nothing_open(bench: Bench, path: str) -> None:
    bench.know(NodeState.ONLINE)
    for _ in range(5):
        await bench.ask_and_hang_up(path)
    assert len(bench.handed_out) == 5
    await bench.nobody_reads()


@pytest.mark.parametrize("path", [STREAM, BYTES])
async def test_a_reader_who_leaves_in_the_middle_leaves_nothing_open(bench: Bench, path: str) -> None:
    bench.know(NodeState.ONLINE)
    async with bench.client.stream("GET", f"/v2/nodes/mac/pool{path}") as response:
        await anext(response.aiter_raw())
        assert bench.readers == [path]
    await bench.nobody_reads()
