"""The listener for hives on other machines: heartbeat and worker-ready, each with the hive's own token."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from queen_rbee.dependencies import ServicesDep
from rbee_shared.auth import bearer_of
from rbee_shared.contracts.nodes import HeartbeatAnswer, HiveHeartbeat
from rbee_shared.contracts.workers import WorkerReady
from rbee_shared.errors import ForbiddenError
from rbee_shared.http_app import json_body

router = APIRouter()


async def calling_node(request: Request, services: ServicesDep) -> str:
    """The node whose hive calls."""
    return services.callbacks.node_of(bearer_of(request.headers.get("authorization")))


NodeDep = Annotated[str, Depends(calling_node)]


@router.post("/v1/heartbeat")
async def heartbeat(
    node: NodeDep, beat: Annotated[HiveHeartbeat, Depends(json_body(HiveHeartbeat))], services: ServicesDep
) -> HeartbeatAnswer:
    """As on her own port, but the token says whose hive it is, not the name that it gives."""
    epoch = await services.reports.heartbeat(beat, node=node)
    return HeartbeatAnswer(
        epoch=epoch or beat.epoch or 0, adopted=epoch is not None, queen_id=services.identity.queen_id
    )


@router.post("/v1/orchestrator/worker-ready")
async def worker_ready(
    node: NodeDep, ready: Annotated[WorkerReady, Depends(json_body(WorkerReady))], services: ServicesDep
) -> dict[str, str]:
    """A hive speaks for its own workers only.

    Raises:
        ForbiddenError: that worker is another node's.
    """
    if services.matchmaker.workers.node_of(ready.worker_id) not in {None, node}:
        raise ForbiddenError(f"{ready.worker_id} is no worker of {node}")
    return {"status": "ok" if await services.reports.worker_ready(ready) else "unknown"}
