"""Orders about workers."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response

from rbee_hive.dependencies import ServicesDep, require_epoch, require_token
from rbee_hive.workers.lifecycle import Worker
from rbee_shared.contracts.workers import SpawnAnswer, SpawnRequest, WorkerList, WorkerState
from rbee_shared.http_app import json_body

router = APIRouter(dependencies=[Depends(require_token), Depends(require_epoch)])


@router.post("/v1/workers/spawn", status_code=202)
@router.post("/workers/start", status_code=202, include_in_schema=False)
async def spawn(
    order: Annotated[SpawnRequest, Depends(json_body(SpawnRequest))],
    services: ServicesDep,
    response: Response,
    wait: Literal["ready"] | None = None,
) -> SpawnAnswer:
    """202 at once; with `wait=ready` 201 when it serves, or the reason why it never will."""
    worker = await services.spawn(order)
    if wait:
        await worker.settled.wait()
        if worker.error is not None:
            raise worker.error
        response.status_code = 201
    return SpawnAnswer(worker_id=worker.order.worker_id, state=worker.state, url=worker.url)


@router.get("/v1/workers/list")
async def workers(services: ServicesDep) -> WorkerList:
    return WorkerList(workers=services.registry.records())


@router.post("/v1/workers/{worker_id}/stop")
async def stop(worker_id: str, services: ServicesDep) -> dict[str, Any]:
    """Answers when it is gone, with what became of its memory."""
    worker = services.registry.get(worker_id)
    await services.registry.stop((worker,))
    return _farewell(worker)


@router.post("/v1/workers/stop-all")
async def stop_all(services: ServicesDep) -> dict[str, Any]:
    """Answers when all are gone."""
    chosen = services.registry.live()
    await services.registry.stop(chosen)
    return {"workers": [_farewell(worker) for worker in chosen]}


def _farewell(worker: Worker) -> dict[str, Any]:
    report = worker.report
    error = (report.error if report else None) or (worker.error if worker.state is WorkerState.FAILED else None)
    return {
        "worker_id": worker.order.worker_id,
        "state": worker.state,
        "memory": None
        if report is None
        else {
            "released": report.error is None,
            "worker_bytes": report.facts.worker_bytes,
            "free_before_bytes": report.facts.free_before_bytes,
            "free_after_bytes": report.facts.free_after_bytes,
            "holders": [holder.__dict__ for holder in report.facts.holders],
        },
        "error": None if error is None else error.body(),
    }
