"""A hive as a worker sees it: takes its callbacks, with a failure mode. Runs in the test's own event loop."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from rbee_shared.server import bind, serving, url_of


@dataclass
class FakeHive:
    """`status`: what callbacks get. `silent`: they get nothing."""

    url: str = ""
    status: int = 200
    silent: bool = False
    heard: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)

    def of(self, path: str) -> list[dict[str, Any]]:
        return [body for heard_path, body, _ in self.heard if heard_path == path]

    @property
    def states(self) -> list[str]:
        """The states of the heartbeats, repeats left out."""
        states = [beat["state"] for beat in self.of("/v1/heartbeat/workers")]
        return [state for number, state in enumerate(states) if number == 0 or states[number - 1] != state]

    async def until(self, holds: Callable[["FakeHive"], object], timeout_s: float = 15) -> None:
        with anyio.fail_after(timeout_s):
            while not holds(self):  # noqa: ASYNC110 - any condition may be waited for
                await anyio.sleep(0.01)


@asynccontextmanager
async def fake_hive(**modes: Any) -> AsyncGenerator[FakeHive]:
    """A hive that listens."""
    hive = FakeHive(**modes)
    app = FastAPI()

    async def take(request: Request) -> Response:
        body = await request.json()
        hive.heard.append((request.url.path, body, request.headers.get("authorization", "")))
        if hive.silent:
            await anyio.sleep_forever()
        return JSONResponse({} if hive.status == 200 else {"error": {"code": "FORBIDDEN"}}, status_code=hive.status)

    for path in ("/v1/workers/ready", "/v1/heartbeat/workers"):
        app.add_api_route(path, take, methods=["POST"])
    listener = bind("127.0.0.1", 0)
    hive.url = url_of(listener)
    async with serving(app, listener, header_s=5, drain_s=1):
        yield hive
