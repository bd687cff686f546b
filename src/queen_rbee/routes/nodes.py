"""`/v2/nodes`: the node catalog, and what is done about a node, told as it happens."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from queen_rbee.dependencies import ServicesDep, with_token
from queen_rbee.errands import Errand
from queen_rbee.node_actions import NodeActions
from queen_rbee.services import Services
from rbee_shared.contracts.nodes import NodeAction, NodeList, NodeOrder, NodeOutcome, NodeView, TrustOrder
from rbee_shared.errors import NotFoundError
from rbee_shared.http_app import error_response, json_body, until_hung_up
from rbee_shared.sse_response import EventStream

router = APIRouter(dependencies=[Depends(with_token)])

OrderDep = Annotated[NodeOrder, Depends(json_body(NodeOrder))]
TrustDep = Annotated[TrustOrder, Depends(json_body(TrustOrder, may_be_empty=True))]
ActionDep = Annotated[NodeAction, Depends(json_body(NodeAction, may_be_empty=True))]
Work = Callable[[Errand], Awaitable[NodeOutcome]]

_ACTIONS: dict[str, Callable[[NodeActions, str, NodeAction, Errand], Awaitable[NodeOutcome]]] = {
    "test": lambda nodes, name, _, errand: nodes.test(name, errand),
    "start": lambda nodes, name, action, errand: nodes.start(name, action, errand),
    "stop": lambda nodes, name, _, errand: nodes.stop(name, errand),
    "install": lambda nodes, name, _, errand: nodes.install(name, errand),
    "update": lambda nodes, name, action, errand: nodes.update(name, action, errand),
    "uninstall": lambda nodes, name, action, errand: nodes.uninstall(name, action, errand),
    "wheelhouse": lambda nodes, name, _, errand: nodes.wheelhouse(name, errand),
    "drain": lambda nodes, name, _, errand: nodes.drain(name, errand, drained=True),
    "resume": lambda nodes, name, _, errand: nodes.drain(name, errand, drained=False),
}


@router.get("/v2/nodes")
async def nodes(services: ServicesDep) -> NodeList:
    """Every node with what is known of it now."""
    return NodeList(nodes=await services.node_views.all())


@router.get("/v2/nodes/{name}")
async def node(name: str, services: ServicesDep) -> NodeView:
    """One of them."""
    return await services.node_views.one(name)


@router.post("/v2/nodes", response_model=NodeOutcome)
async def add(order: OrderDep, request: Request, services: ServicesDep) -> Response:
    """Add a node, or change what the order names of one."""
    whole = await services.nodes.directory.completed(order)
    return await _done(request, services, lambda errand: services.nodes.add(whole, errand))


@router.delete("/v2/nodes/{name}", response_model=NodeOutcome)
async def remove(name: str, request: Request, services: ServicesDep) -> Response:
    """Stop its hive, and forget it."""
    await services.nodes.directory.look_up(name)  # while it can still be an HTTP status
    return await _done(request, services, lambda errand: services.nodes.remove(name, errand))


@router.post("/v2/nodes/{name}/trust", response_model=NodeOutcome)
async def trust(name: str, order: TrustDep, request: Request, services: ServicesDep) -> Response:
    """Accept the host key that it shows now."""
    await services.nodes.directory.look_up(name)
    return await _done(request, services, lambda errand: services.nodes.trust(name, order, errand))


@router.post("/v2/nodes/{name}/{action}", response_model=NodeOutcome)
async def act(name: str, action: str, options: ActionDep, request: Request, services: ServicesDep) -> Response:
    """Test, start, stop, install, update, uninstall, wheelhouse, drain, resume."""
    if (work := _ACTIONS.get(action)) is None:
        raise NotFoundError(f"a node cannot be told to {action[:64]!r}; it can: {', '.join(_ACTIONS)}, trust")
    await services.nodes.directory.look_up(name)
    return await _done(request, services, lambda errand: work(services.nodes, name, options, errand))


async def _done(request: Request, services: Services, work: Work) -> Response:
    """Its stream, or its outcome at the end; who hangs up ends it."""
    errand = services.errands.begin(work)
    if "text/event-stream" in request.headers.get("accept", ""):
        clocks = services.daemon.clocks
        return EventStream(
            errand.log.follow(0, ping_s=clocks.sse_ping_s), slow_client_s=clocks.slow_client_s, ended=errand.hung_up
        )
    await until_hung_up(request, errand.finished.wait)
    errand.hung_up()
    await errand.finished.wait()
    if errand.error is not None:
        return error_response(errand.error, request.app.state.source)
    assert errand.outcome is not None
    return JSONResponse(errand.outcome.model_dump(mode="json"))
