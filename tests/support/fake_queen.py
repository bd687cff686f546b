"""A queen that answers from a script: real process, real HTTP, real handshake and run file; failure modes are flags.

    fake_queen.py [--die-after N | --truncate-after N | --garbage | ...] daemon --port N [--parent stdin]

What happens to it is written as JSON lines to `$RBEE_HOME/fake-queen.jsonl`.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from tests.support.fake_nodes import FakeNodes, add_flags

from rbee_shared import sse
from rbee_shared.auth import read_or_make_token, require_bearer
from rbee_shared.contracts.events import token_frame
from rbee_shared.daemon import Daemon, run_daemon
from rbee_shared.errors import ShuttingDownError, error_from_body
from rbee_shared.http_app import new_app
from rbee_shared.narration import Narration, Narrator
from rbee_shared.parent import parent_of
from rbee_shared.paths import Home
from rbee_shared.run_file import run_file
from rbee_shared.server import bind, serving, url_of
from rbee_shared.sse_response import EventStream

ANSWER = ["Once", " upon", " a", " time", " a", " bee", " found", " a", " füt", "\u2028", "ter", "."]


def flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answer", type=json.loads, default=ANSWER, help="JSON list of pieces")
    parser.add_argument("--token-s", type=float, default=0.0, help="pause before each piece")
    parser.add_argument("--first-token-s", type=float, default=0.0)
    parser.add_argument("--start-s", type=float, default=0.0, help="pause before it binds")
    parser.add_argument("--narrate-every", type=int, default=0, help="a line after every N pieces")
    parser.add_argument("--die-after", type=int, help="SIGKILL itself after N pieces")
    parser.add_argument("--truncate-after", type=int, help="end the stream after N pieces, live on")
    parser.add_argument("--error-after", type=int, help="an `error` event after N pieces")
    parser.add_argument("--garbage", action="store_true", help="a frame that is no JSON")
    parser.add_argument("--stop-reason", default="EOS")
    parser.add_argument("--refuse", help="answer a submitted task with this code")
    parser.add_argument("--refuse-first", action="store_true", help="SHUTTING_DOWN to the first task, and go")
    parser.add_argument("--fail-start", help="die at start-up with this code")
    parser.add_argument("--stranger", action="store_true", help="/health of some other program")
    parser.add_argument("--ephemeral", action="store_true", help="even without a parent")
    parser.add_argument("--deaf", action="store_true", help="says it shuts down, and does not")
    parser.add_argument("--shutdown-s", type=float, default=0.0, help="takes its time to go")
    add_flags(parser)
    parser.add_argument("program", nargs="?")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent")
    return parser.parse_args()


class FakeQueen:
    def __init__(self, args: argparse.Namespace, daemon: Daemon, token: str) -> None:
        self.args = args
        self.daemon = daemon
        self.token = token
        self.ephemeral = args.ephemeral or (daemon.handshake is not None and daemon.handshake.ephemeral)
        self.holds: set[str] = set()
        self.served = 0

    def note(self, what: str, **facts: Any) -> None:
        with (self.daemon.home.root / "fake-queen.jsonl").open("a") as file:
            file.write(json.dumps({"what": what, "pid": os.getpid(), "at_s": time.time(), **facts}) + "\n")

    def app(self) -> FastAPI:
        app = new_app("fake", "0", source="queen-rbee", body_s=5)
        guarded = [Depends(self.guard)]
        app.get("/health")(self.health)
        app.get("/v2/hold")(self.hold)
        app.post("/v2/tasks")(self.task)
        app.post("/shutdown", dependencies=guarded, status_code=202)(self.shutdown)
        app.get("/v2/events", dependencies=guarded)(self.events)
        leave = partial(self.daemon.stopping.request, "scripted")
        nodes = FakeNodes(self.args, self.note, self.daemon.hub.publish, leave)
        app.include_router(nodes.router(), dependencies=guarded)
        app.get("/v2/workers", dependencies=guarded)(self.workers)
        return app

    async def guard(self, request: Request) -> None:
        require_bearer(request.headers.get("authorization"), self.token)

    async def health(self) -> JSONResponse:
        status = "shutting_down" if self.daemon.stopping.is_requested else "healthy"
        facts = {"status": status, "instance": self.daemon.instance, "version": "0.1.0", "ephemeral": self.ephemeral}
        who = {"name": "something"} if self.args.stranger else {"program": "queen-rbee"}
        return JSONResponse({**facts, **who, "pools": 0, "workers": 0, "queue_depth": 0})

    async def hold(self) -> Response:
        if self.daemon.stopping.is_requested:
            raise ShuttingDownError("the queen is shutting down")
        return EventStream(self._hold(), slow_client_s=60)

    async def _hold(self) -> AsyncGenerator[bytes]:
        hold_id = f"hold-{len(self.holds)}"
        self.holds.add(hold_id)
        self.note("held", hold=hold_id)
        try:
            yield sse.encode("hold", {"hold_id": hold_id})
            while not self.daemon.stopping.is_requested:
                yield sse.PING
                with anyio.move_on_after(0.1):
                    await self.daemon.stopping.requested.wait()
            async for chunk in self.daemon.hub.events.follow(0, ping_s=1):
                yield chunk
        finally:
            self.holds.discard(hold_id)
            self.note("released", hold=hold_id)

    async def task(self, request: Request) -> Response:
        body = await request.json()
        self.note("task", body=body, headers=dict(request.headers))
        self.served += 1
        if self.args.refuse_first and not (self.daemon.home.root / "refused").exists():
            (self.daemon.home.root / "refused").touch()
            self.daemon.stopping.request("scripted")
            raise ShuttingDownError("the queen is shutting down")
        if self.args.refuse:
            raise error_from_body({"code": self.args.refuse, "message": "scripted", "hint": "do something else"})
        return EventStream(self._answer(), slow_client_s=60)

    async def _answer(self) -> AsyncGenerator[bytes]:
        ended = False
        try:
            yield sse.encode("queued", {"position": 1, "reason": "somebody else is served"})
            yield self._line("picked cpu on localhost: \x1b[31mred\x07", "choose")
            for done in (0, 500, 1000):
                yield sse.encode("progress", {"stage": "load", "done": done, "total": 1000, "unit": "‰"})
            await anyio.sleep(self.args.first_token_s)
            yield sse.encode("started", {"job_id": "j", "model": "m", "worker_id": "w", "device": "cpu"})
            for index, piece in enumerate(self.args.answer):
                await anyio.sleep(self.args.token_s)
                for chunk in self._misbehave(index):
                    yield chunk
                    ended = True
                if ended:
                    return
                yield token_frame(piece, index, [index])
                if self.args.narrate_every and index % self.args.narrate_every == 1:
                    yield self._line(f"generated {index + 1} tokens", "generate")
            ended = True
            yield sse.encode("end", {"tokens_out": len(self.args.answer), "stop_reason": self.args.stop_reason})
            yield sse.DONE
        finally:
            self.note("answered" if ended else "hung_up")

    def _misbehave(self, index: int) -> list[bytes]:
        """What comes instead of this piece; anything ends the stream."""
        if index == self.args.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.args.truncate_after:
            return [b": cut off\n\n"]
        if index == self.args.error_after:
            body = {"code": "WORKER_CRASHED", "message": "the worker died", "hint": "again", "retryable": True}
            return [sse.encode("error", {**body, "details": {}}) + sse.DONE]
        if self.args.garbage:
            return [b"event: token\ndata: {nonsense\n\n"]
        return []

    def _line(self, human: str, action: str) -> bytes:
        line = Narration("queen", action, human, cute="\N{CROWN}", at_ms=1, correlation_id="c")
        return sse.encode("narration", line.to_dict())

    async def shutdown(self, request: Request, hold: str | None = None) -> dict[str, Any]:
        self.note("shutdown", hold=hold, headers=dict(request.headers))
        if hold is not None:
            self.holds.discard(hold)
            if self.holds:
                return {"status": "held", "holds": len(self.holds)}
        if not self.args.deaf:
            self.daemon.stopping.request("asked to")
        return {"status": "shutting_down"}

    async def events(self) -> Response:
        log = self.daemon.hub.events
        return EventStream(log.follow(log.last_id, ping_s=1), slow_client_s=60)

    async def workers(self) -> dict[str, Any]:
        worker = {"id": "w1", "state": "idle", "model_ref": "builtin:storyteller", "backend": "cpu", "device": "cpu"}
        return {"workers": [{**worker, "node_name": "localhost", "slots_total": 1, "slots_available": 1}]}


async def live(daemon: Daemon, args: argparse.Namespace) -> None:
    await anyio.sleep(args.start_s)
    if args.fail_start:
        raise error_from_body({"code": args.fail_start, "message": "scripted", "hint": "do something else"})
    listener = bind("127.0.0.1", args.port)
    queen = FakeQueen(args, daemon, read_or_make_token(daemon.home.token))
    narrator = Narrator("queen", daemon.hub.publish)
    async with serving(queen.app(), listener, header_s=5, drain_s=1):
        published = run_file(daemon.home.run_file("queen-rbee"), url=url_of(listener), instance=daemon.instance)
        with nullcontext() if args.stranger else published:
            daemon.hub.announce("listening", url=url_of(listener), instance=daemon.instance)
            queen.note("listening", url=url_of(listener), argv=sys.argv)
            await daemon.stopping.requested.wait()
        await anyio.sleep(args.shutdown_s)
        narrator.tell("goodbye", "goodbye")
        daemon.hub.events.close()
        await anyio.sleep(0.05)
    queen.note("gone")


def main() -> None:
    args = flags()

    async def body(daemon: Daemon) -> None:
        await live(daemon, args)

    Path(Home.from_environment().root).mkdir(parents=True, exist_ok=True)
    sys.exit(run_daemon("queen-rbee", body, parent=parent_of(sys.argv[1:])))


if __name__ == "__main__":
    main()
