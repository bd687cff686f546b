"""`/v2/nodes/{name}/pool/…`: the API of that node's hive. Questions wake nobody; orders do."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from queen_rbee.dependencies import ServicesDep, with_token
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.pool_proxy import Answer, Call
from queen_rbee.services import Services
from rbee_shared.contracts.nodes import NodeState
from rbee_shared.errors import NodeUnreachableError
from rbee_shared.sse_response import EventStream

router = APIRouter(dependencies=[Depends(with_token)])

_GOING = {NodeState.OFFLINE: "has gone silent", NodeState.DRAINING: "is being stopped"}


@router.api_route("/v2/nodes/{name}/pool/{rest:path}", methods=["GET", "POST", "DELETE"])
async def pool(name: str, rest: str, request: Request, services: ServicesDep) -> Response:
    """Pass it on, and the answer back."""
    node = (await services.nodes.directory.look_up(name)).name
    entry = await (_answering if request.method == "GET" else _woken)(services, node)
    body = await request.body()
    headers = {key.lower(): value for key, value in request.headers.items()}
    answer = await services.pool.pass_on(entry, Call(request.method, rest, request.url.query, headers, body))
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return EventStream(answer.chunks, slow_client_s=services.daemon.clocks.slow_client_s, ended=answer.close)
    return _PassedBack(answer)


async def _woken(services: Services, node: str) -> HiveEntry:
    """The hive as its starts, stops and reconnections leave it. A drained one too: an operator's order is no task."""
    async with services.contacts.lock(node):
        return await services.lifecycle.awake(node, services.narrator, lambda _: None)


async def _answering(services: Services, node: str) -> HiveEntry:
    """The hive, if it is up; one that is starting, or whose connection is coming back, is waited for.

    Raises:
        NodeUnreachableError: it is not.
    """
    entry = services.hives.get(node)
    if entry is not None and entry.state is NodeState.STARTING:
        async with services.contacts.lock(node):  # whoever starts it has it
            entry = services.hives.get(node)
    if entry is not None and entry.reach.is_coming_back:
        await entry.reach.url(entry.own_url)
        entry = services.hives.get(node)
    if entry is None:
        raise NodeUnreachableError(f"the hive at {node} is asleep", hint=f"Wake it: rbee-keeper node start {node}")
    if (why := _GOING.get(entry.state)) is not None:
        raise NodeUnreachableError(f"the hive at {node} {why}")
    return entry


class _PassedBack(StreamingResponse):
    """Lets the hive go however it ends: also where the client has gone before the first byte."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.chunks, status_code=answer.status, headers=answer.headers)
        self._close = answer.close

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()
