"""A worker that nobody else hears of: it loads one model on one device, decodes one token, and is ended.

It is a real one, with a key of its own, and ends with this hive like any other; but it is in no registry and sends no
heartbeat, so the queen never gives it work.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.to_thread
import httpx2

from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.memory_probe import WORKER_ID_VARIABLE
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.orphans import noted
from rbee_shared.child import Child, Command, running
from rbee_shared.clocks import Clocks
from rbee_shared.errors import BadPeerError, RbeeError, WorkerCrashedError, error_from_body
from rbee_shared.handshake import Handshake
from rbee_shared.http_client import bearer, read_answer
from rbee_shared.paths import Home
from rbee_shared.sse import TERMINAL_EVENTS, FrameSplitter

_PROMPT = "Once upon a time"
_POLL_S = 0.05
_HEAR_S = 1.0
_OK, _READY, _NOT_YET = 200, 204, 503


@dataclass(frozen=True)
class FirstToken:
    """`seconds`: from the start of the process."""

    text: str
    seconds: float


async def first_token(order: WorkerOrder, home: Home, clocks: Clocks, client: httpx2.AsyncClient) -> FirstToken:
    """Start the worker of `order` and have it say one token. Cancelling this ends it.

    Raises:
        RbeeError: why there is none; it is the worker's own error where it told one.
    """
    began_s = anyio.current_time()
    async with _on_trial(order, home, clocks) as child:
        text = await _what_it_says(child, order.api_key, clocks, client)
        seconds = anyio.current_time() - began_s
    if isinstance(text, RbeeError):
        raise text  # behind the block, which would wrap it
    await anyio.to_thread.run_sync(worker_logs.remove, home.logs, order.worker_id)
    return FirstToken(text, seconds)


@asynccontextmanager
async def _on_trial(order: WorkerOrder, home: Home, clocks: Clocks) -> AsyncGenerator[Child]:
    command = Command(
        order.argv(None),
        worker_logs.log_of(home.logs, order.worker_id, 0),
        {**order.extra_env, WORKER_ID_VARIABLE: order.worker_id},
    )
    handshake = Handshake.from_here(api_key=order.api_key, correlation_id=order.correlation_id)
    async with (
        running(command, handshake, lambda _: None, stop_grace_s=clocks.worker_drain_s) as child,
        noted(home, order.worker_id, child.pid),
    ):
        try:
            yield child
        finally:
            child.kill()  # it has nothing to finish; and a server on its way out waits for no gentle end


async def _what_it_says(child: Child, key: str, clocks: Clocks, client: httpx2.AsyncClient) -> str | RbeeError:
    """One token's text, or why there is none."""
    try:
        listening = await child.wait_listening(clocks.worker_bind_s)
        await _until_ready(client, listening.url, key)
        return await _decode(client, listening.url, key)
    except RbeeError as error:
        return error
    except httpx2.TransportError as error:
        with anyio.move_on_after(_HEAR_S):
            await child.wait_exit()
        return child.death() if child.returncode is not None else WorkerCrashedError(f"it does not answer: {error!r}")


async def _until_ready(client: httpx2.AsyncClient, url: str, key: str) -> None:
    """A worker that cannot load its model ends, and its port with it: then the connection fails."""
    while True:
        answer = await client.get(f"{url}/v1/ready", headers=bearer(key))
        if answer.status_code == _READY:
            return
        if answer.status_code != _NOT_YET:
            read_answer(answer.status_code, answer.content, what="GET /v1/ready")
        await anyio.sleep(_POLL_S)


async def _decode(client: httpx2.AsyncClient, url: str, key: str) -> str:
    order = {"prompt": _PROMPT, "template": "raw", "max_tokens": 1, "temperature": 0}
    answer = await client.post(f"{url}/execute", json=order, headers=bearer(key))
    if answer.status_code != _OK:
        read_answer(answer.status_code, answer.content, what="POST /execute")
    frames = FrameSplitter().feed(answer.content)
    ends = {frame.event: frame.json() for frame in frames if frame.event in TERMINAL_EVENTS}
    if "error" in ends:
        raise error_from_body(ends["error"])
    if not ends.get("end", {}).get("tokens_out"):
        raise BadPeerError("the worker's answer ended without a token")
    return "".join(str(frame.json().get("t", "")) for frame in frames if frame.event == "token")
