"""The HTTP server of every daemon against clients that mean harm, over real sockets."""

import json
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import anyio
import anyio.abc
import pytest
from fastapi import Depends, FastAPI, Query, Request
from pydantic import BaseModel, Field
from tests.support.processes import open_fds

from rbee_shared.auth import require_bearer
from rbee_shared.errors import InvalidRequestError, PortInUseError, QueueFullError
from rbee_shared.http_app import json_body, new_app
from rbee_shared.server import bind, bind_first_free, serving, url_of
from rbee_shared.sse_response import EventStream, last_event_id

_PATIENCE_S = 20.0
Answer = tuple[int, dict[str, str], bytes]


class Wish(BaseModel):
    name: str = Field(min_length=1)
    weight: float = Field(default=1.0, ge=0, le=10)


def _app(body_s: float = 10.0) -> FastAPI:
    app = new_app("test", "1", source="queen", body_s=body_s)

    @app.post("/wish")
    async def wish(body: Annotated[Wish, Depends(json_body(Wish))]) -> dict[str, Any]:
        return body.model_dump()

    @app.get("/health")
    async def health(limit: Annotated[int, Query(ge=1)] = 1) -> dict[str, int]:
        return {"limit": limit}

    @app.get("/full")
    async def full() -> None:
        raise QueueFullError("too many")

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("the secret is 12345")

    @app.get("/guarded")
    async def guarded(request: Request) -> None:
        require_bearer(request.headers.get("authorization"), "right")

    @app.get("/from")
    async def from_id(request: Request) -> int:
        return last_event_id(request)

    return app


@asynccontextmanager
async def _served(app: FastAPI, *, header_s: float = 10.0, drain_s: float = 5.0) -> AsyncGenerator[int]:
    listener = bind("127.0.0.1", 0)
    port = int(listener.getsockname()[1])
    async with serving(app, listener, header_s=header_s, drain_s=drain_s):
        with anyio.fail_after(_PATIENCE_S):
            yield port


@asynccontextmanager
async def _connected(port: int) -> AsyncGenerator[anyio.abc.SocketStream]:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield stream


async def _answer(stream: anyio.abc.SocketStream) -> Answer:
    """Read one response with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive()
    return int(status.split()[1]), headers, body


async def _until_hung_up(stream: anyio.abc.SocketStream) -> None:
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return


async def _ask(port: int, method: str, target: str, *, body: bytes = b"", **headers: str) -> Answer:
    fields = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    async with _connected(port) as stream:
        await stream.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return await _answer(stream)


def _error(answer: Answer) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer[2])["error"]
    assert set(error) == {"code", "message", "hint", "retryable", "details", "source", "correlation_id"}
    assert error["source"] == "queen"
    assert error["correlation_id"] == answer[1]["x-correlation-id"]
    return error


# binding


def test_a_held_port_names_its_holder() -> None:
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"port {port} is held by .+ \(pid {os.getpid()}\)") as raised:
            bind("127.0.0.1", port)
        assert raised.value.details == {"port": port}
        with pytest.raises(PortInUseError, match="every port"):
            bind_first_free("127.0.0.1", port, 1)
        with bind_first_free("127.0.0.1", port, 1000) as next_free:
            assert next_free.getsockname()[1] > port


@pytest.mark.parametrize("host", ["256.1.1.1", "no.such.host.invalid", "a" * 300])
def test_an_address_that_is_none_is_the_users_mistake(host: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot listen on"):
        bind(host, 0)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_the_url_of_a_socket_leads_to_it(host: str, shown: str) -> None:
    try:
        listener = bind(host, 0)
    except (PortInUseError, InvalidRequestError):
        pytest.skip(f"this machine has no {host}")
    with listener:
        assert url_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"


# who drips, floods or stalls


async def test_a_header_that_drips_is_cut() -> None:
    async with _served(_app(), header_s=0.3) as port, _connected(port) as stream:
        await stream.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        async with anyio.create_task_group() as group:

            async def drip() -> None:
                try:
                    while True:
                        await stream.send(b"X: y\r\n")
                        await anyio.sleep(0.02)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return

            group.start_soon(drip)
            await _until_hung_up(stream)
            group.cancel_scope.cancel()


async def test_who_connects_and_says_nothing_is_cut_and_the_second_header_is_timed_too() -> None:
    async with _served(_app(), header_s=0.3) as port:
        async with _connected(port) as silent:
            await _until_hung_up(silent)
        async with _connected(port) as second:
            await second.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await _answer(second))[0] == 200
            await second.send(b"GET /health HT")
            await _until_hung_up(second)


async def test_a_huge_header_is_refused() -> None:
    async with _served(_app()) as port, _connected(port) as stream:
        with anyio.move_on_after(_PATIENCE_S):
            try:
                await stream.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 10_000_000)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            await _until_hung_up(stream)
            return
        pytest.fail("ten megabytes of header were taken")


async def test_a_body_that_does_not_arrive_is_408() -> None:
    async with _served(_app(body_s=0.3)) as port, _connected(port) as stream:
        await stream.send(b"POST /wish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = await _answer(stream)
        assert answer[0] == 408
        assert _error(answer)["code"] == "REQUEST_TIMEOUT"
        await _until_hung_up(stream)


async def test_ten_megabytes_are_413_declared_or_not() -> None:
    """The client sends everything before it reads: the answer must reach it all the same."""
    async with _served(_app()) as port:
        answer = await _ask(port, "POST", "/wish", body=b"x" * 10_000_000)
        assert answer[0] == 413
        assert _error(answer)["code"] == "PAYLOAD_TOO_LARGE"

        async with _connected(port) as stream:
            await stream.send(b"POST /wish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(100):
                await stream.send(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
            await stream.send(b"0\r\n\r\n")
            answer = await _answer(stream)
            assert answer[0] == 413
            await _until_hung_up(stream)


async def test_who_asks_first_is_told_before_sending() -> None:
    async with _served(_app()) as port, _connected(port) as stream:
        await stream.send(
            b"POST /wish HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n"
        )
        assert (await _answer(stream))[0] == 413


async def test_a_terabyte_is_refused_unread() -> None:
    async with _served(_app()) as port, _connected(port) as stream:
        await stream.send(b"POST /wish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n")
        assert (await _answer(stream))[0] == 413


async def test_one_connection_serves_many_requests() -> None:
    async with _served(_app(), header_s=0.3) as port, _connected(port) as stream:
        seen = set()
        for _ in range(20):
            await stream.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, headers, _ = await _answer(stream)
            assert status == 200
            seen.add(headers["x-correlation-id"])
        assert len(seen) == 20, "a correlation id is one request's"
        await stream.send(b"POST /wish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n")
        await stream.send(b'{"name": "b"}\n')
        assert (await _answer(stream))[0] == 200


# bodies


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[", b"[" * 200_000, b'{"name": ' * 50_000, b"\xff\xfe\x00", b'"\xff"', b"[]", b"null",
        b'"text"',         b'{"name": NaN}', b'{"name": "b", "weight": NaN}', b'{"name": "b", "weight": Infinity}',
        b'{"name": "\\ud800"}', b'{"name": "b", "weight": ' + b"9" * 5000 + b"}", b'{"name": ""}',
    ],
)  # fmt: skip
async def test_a_bad_body_is_400_with_its_faults(body: bytes) -> None:
    async with _served(_app()) as port:
        answer = await _ask(port, "POST", "/wish", body=body)
        assert answer[0] == 400, answer
        error = _error(answer)
        assert error["code"] == "INVALID_REQUEST"
        assert {"field", "constraint", "message"} <= set(error["details"]["errors"][0])
        assert (await _ask(port, "GET", "/health"))[0] == 200


async def test_all_faults_are_named_at_once() -> None:
    async with _served(_app()) as port:
        error = _error(await _ask(port, "POST", "/wish", body=b'{"weight": 11}'))
        assert {fault["field"] for fault in error["details"]["errors"]} == {"name", "weight"}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=x", ""])
async def test_json_is_read_whatever_it_is_called(kind: str) -> None:
    async with _served(_app()) as port:
        status, _, data = await _ask(port, "POST", "/wish", body=b'{"name": "bee"}', Content_Type=kind)
        assert status == 200
        assert json.loads(data)["name"] == "bee"


# errors


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/%ff%00%1b[31m", 404, "NOT_FOUND"),
        ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/health?limit=none", 400, "INVALID_REQUEST"),
        ("GET", "/health?limit=0", 400, "INVALID_REQUEST"),
        ("GET", "/guarded", 401, "MISSING_API_KEY"),
        ("GET", "/full", 429, "QUEUE_FULL"),
        ("GET", "/broken", 500, "INTERNAL"),
    ],
)
async def test_every_error_has_the_same_shape(method: str, target: str, status: int, code: str) -> None:
    async with _served(_app()) as port:
        answer = await _ask(port, method, target, X_Correlation_Id="req-mine")
        error = _error(answer)
        assert (answer[0], error["code"]) == (status, code)
        assert error["correlation_id"] == "req-mine"
        assert "12345" not in error["message"], "what an exception says stays in the log"
        assert error["hint"]
        assert ("retry-after" in answer[1]) == (status == 429)


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, "a/../b", "ünï"])
async def test_a_correlation_id_that_is_none_is_replaced(sent: str) -> None:
    async with _served(_app()) as port:
        made = (await _ask(port, "GET", "/health", X_Correlation_Id=sent))[1]["x-correlation-id"]
        assert made.startswith("req-")


@pytest.mark.parametrize(("sent", "expected"), [("", 0), ("7", 7), (" 12 ", 12)])
async def test_last_event_id_is_a_number(sent: str, expected: int) -> None:
    async with _served(_app()) as port:
        status, _, data = await _ask(port, "GET", "/from", Last_Event_ID=sent)
        assert (status, json.loads(data)) == (200, expected)


@pytest.mark.parametrize("sent", ["-1", "x", "1.5", "²"])
async def test_last_event_id_that_is_none_is_400(sent: str) -> None:
    async with _served(_app()) as port:
        assert _error(await _ask(port, "GET", "/from", Last_Event_ID=sent))["code"] == "INVALID_REQUEST"


# streams


class Source:
    """Events for ever; knows when its reader is gone."""

    def __init__(self, chunk: bytes = b"event: x\ndata: {}\n\n", pause_s: float = 0.01) -> None:
        self.ended = anyio.Event()
        self.sent = 0
        self._chunk = chunk
        self._pause_s = pause_s

    async def events(self) -> AsyncGenerator[bytes]:
        try:
            while True:
                self.sent += 1
                yield self._chunk
                await anyio.sleep(self._pause_s)
        finally:
            self.ended.set()


@pytest.fixture
def streaming() -> Callable[..., AbstractAsyncContextManager[int]]:
    def start(source: Source, *, slow_client_s: float = 10.0, **bounds: float) -> AbstractAsyncContextManager[int]:
        app = _app()

        @app.get("/events", response_model=None)
        async def events() -> EventStream:
            return EventStream(source.events(), slow_client_s=slow_client_s)

        return _served(app, **bounds)

    return start


def _sockets() -> int:
    return sum("socket:" in each for each in open_fds())


_GET_EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("pause_s", [0.001, 3600.0])
async def test_a_reader_who_hangs_up_ends_the_source_at_once(
    streaming: Callable[..., AbstractAsyncContextManager[int]], pause_s: float
) -> None:
    source = Source(pause_s=pause_s)
    async with streaming(source) as port:
        async with _connected(port) as stream:
            await stream.send(_GET_EVENTS)
            assert b"text/event-stream" in await stream.receive()
        await source.ended.wait()


async def test_a_reader_who_takes_nothing_is_cut(streaming: Callable[..., AbstractAsyncContextManager[int]]) -> None:
    source = Source(chunk=b"data: " + b"x" * 50_000 + b"\n\n", pause_s=0)
    async with streaming(source, slow_client_s=0.3, header_s=0.3) as port:
        sockets = _sockets()
        with socket.create_connection(("127.0.0.1", port)) as frozen:
            frozen.sendall(_GET_EVENTS)
            await source.ended.wait()
            assert source.sent < 2000, "what it does not take is not produced for it"
            # closing waits for the buffers, which nobody empties: only cutting the connection frees them
            while _sockets() > sockets + 1:  # noqa: ASYNC110 - the system tells nobody
                await anyio.sleep(0.05)


async def test_open_streams_end_within_the_drain(streaming: Callable[..., AbstractAsyncContextManager[int]]) -> None:
    source = Source()
    async with streaming(source, drain_s=0.2) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.send(_GET_EVENTS)
        await stream.receive()
    assert source.ended.is_set(), "its clean-up ran before the server was left"
    await _until_hung_up(stream)
    await stream.aclose()


async def test_a_cancelled_server_lets_its_streams_end_too(
    streaming: Callable[..., AbstractAsyncContextManager[int]],
) -> None:
    source = Source()
    with anyio.CancelScope() as scope:
        async with streaming(source, drain_s=0.2) as port:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            await stream.send(_GET_EVENTS)
            await stream.receive()
            scope.cancel()
    assert source.ended.is_set()
    await stream.aclose()


async def test_what_was_asked_before_the_end_is_answered() -> None:
    app = _app()
    asked = anyio.Event()

    @app.get("/slow")
    async def slow() -> str:
        asked.set()
        await anyio.sleep(0.2)
        return "done"

    async with anyio.create_task_group() as group, _served(app) as port:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await _ask(port, "GET", "/slow"))

        group.start_soon(ask)
        await asked.wait()
    assert answers[0][2] == b'"done"'
