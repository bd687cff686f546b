"""`/v2/nodes/{name}/pool/…`: the API of that node's hive. Questions wake nobody; orders do."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from queen_rbee.dependencies import ServicesDep, with_token
from queen_rbee.hive_registry import HiveEntry
from queen_rbee.pool_proxy import Call
from queen_rbee.services import Services
from rbee_shared.contracts.nodes import NodeState
from rbee_shared.errors import NodeUnreachableError
from rbee_shared.sse_response import EventStream

router = APIRouter(dependencies=[Depends(with_token)])


@router.api_route("/v2/nodes/{name}/pool/{rest:path}", methods=["GET", "POST", "DELETE"])
async def pool(name: str, rest: str, request: Request, services: ServicesDep) -> Response:
    """Pass it on, and the answer back."""
    entry = await _hive(services, name, wake=request.method != "GET")
    body = await request.body()
    headers = {key.lower(): value for key, value in request.headers.items()}
    answer = await services.pool.pass_on(entry, Call(request.method, rest, request.url.query, headers, body))
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return EventStream(answer.chunks, slow_client_s=services.daemon.clocks.slow_client_s)
    return StreamingResponse(answer.chunks, status_code=answer.status, headers=answer.headers)


async def _hive(services: Services, name: str, *, wake: bool) -> HiveEntry:
    node = await services.nodes.directory.get(name)
    entry = services.hives.get(node.name)
    if entry is not None and entry.state is not NodeState.OFFLINE:
        return entry
    if not wake:
        raise NodeUnreachableError(
            f"the hive at {node.name} is asleep", hint=f"Wake it: rbee-keeper node start {node.name}"
        )
    return await services.lifecycle.ensure(node.name, services.narrator, lambda _: None)
