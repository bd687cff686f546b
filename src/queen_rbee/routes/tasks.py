"""`/v2/tasks`: submit in three forms, look, follow, cancel."""

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from queen_rbee.dependencies import ServicesDep, TrustedDep, local_or_token, with_token
from queen_rbee.services import Services
from queen_rbee.task import Task
from rbee_shared.contracts.tasks import TaskAccepted, TaskList, TaskRequest, TaskView
from rbee_shared.http_app import error_response, json_body, until_hung_up
from rbee_shared.sse_response import EventStream, last_event_id

router = APIRouter()

_REQUEST_SCHEMA = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": TaskRequest.model_json_schema()}}}
}
RequestDep = Annotated[TaskRequest, Depends(json_body(TaskRequest))]


@router.post("/v2/tasks", openapi_extra=_REQUEST_SCHEMA, status_code=202, response_model=TaskAccepted)
@router.post("/jobs", include_in_schema=False)
async def submit(request: Request, body: RequestDep, services: ServicesDep, trusted: TrustedDep) -> Response:
    """Take a task; the answer has one of three forms.

    The stream itself with `Accept: text/event-stream` or `"stream": true`; one JSON at the end with `"stream": false`;
    otherwise 202 with `events_url`. A client that waits for the answer and hangs up cancels the task.
    """
    wants_stream = body.stream if body.stream is not None else _accepts_stream(request)
    waits = body.stream is False
    task = await services.dispatcher.submit(body, attached=wants_stream or waits, trusted=trusted)
    headers = {"X-Rbee-Task-Id": task.id}
    if wants_stream:
        return _event_stream(services, task, 0, headers)
    if waits:
        return await _final_answer(request, services, task, headers)
    accepted = TaskAccepted(
        task_id=task.id,
        job_id=task.id,
        status=task.state,
        queue_position=services.tasks.waiting_models().count(task.wish.model_ref),
        events_url=f"{request.scope['path']}/{task.id}/events",
    )
    return JSONResponse(accepted.model_dump(mode="json"), status_code=202, headers=headers)


@router.get("/v2/tasks", dependencies=[Depends(with_token)])
async def list_tasks(
    services: ServicesDep, limit: Annotated[int, Query(ge=1, le=1000)] = 50, before: str | None = None
) -> TaskList:
    """Newest first; `before` is the id that `next_before` of the page before named."""
    tasks = services.tasks.newest_first()
    start = tasks.index(services.tasks.get(before)) + 1 if before is not None else 0
    page = tasks[start : start + limit]
    more = start + limit < len(tasks)
    return TaskList(tasks=tuple(t.view() for t in page), total=len(tasks), next_before=page[-1].id if more else None)


@router.get("/v2/tasks/{task_id}", dependencies=[Depends(local_or_token)])
async def one_task(task_id: str, services: ServicesDep) -> TaskView:
    """Its state, and its result or error when it has ended."""
    return services.tasks.get(task_id).view()


@router.get("/v2/tasks/{task_id}/events", dependencies=[Depends(local_or_token)])
@router.get("/jobs/{task_id}/events", dependencies=[Depends(local_or_token)], include_in_schema=False)
async def events(task_id: str, request: Request, services: ServicesDep) -> Response:
    """Its event stream from the beginning, or after `Last-Event-ID`; any number of readers."""
    return _event_stream(services, services.tasks.get(task_id), last_event_id(request), {})


@router.post("/v2/tasks/{task_id}/cancel", dependencies=[Depends(local_or_token)])
@router.delete("/v2/tasks/{task_id}", dependencies=[Depends(local_or_token)])
async def cancel(task_id: str, services: ServicesDep) -> TaskView:
    """Idempotent; answers when the task has ended, or after a few seconds if that takes longer."""
    task = services.tasks.get(task_id)
    services.dispatcher.cancel(task, "asked to")
    with anyio.move_on_after(services.daemon.clocks.worker_drain_s):
        await task.finished.wait()
    return task.view()


def _accepts_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _event_stream(services: Services, task: Task, after: int, headers: dict[str, str]) -> EventStream:
    task.log.require_kept(after)  # while it can still be an HTTP status
    clocks = services.daemon.clocks
    return EventStream(
        task.log.follow(after, ping_s=clocks.sse_ping_s),
        slow_client_s=clocks.slow_client_s,
        headers=headers,
        ended=services.dispatcher.attend(task),
    )


async def _final_answer(request: Request, services: Services, task: Task, headers: dict[str, str]) -> Response:
    leave = services.dispatcher.attend(task)
    try:
        await until_hung_up(request, task.finished.wait)
    finally:
        leave()
    await task.finished.wait()
    if task.error is not None:
        refusal = error_response(task.error, request.app.state.source)
        refusal.headers.update(headers)
        return refusal
    answer: dict[str, Any] = {**(task.result or {}), "status": task.state, "text": task.answer_text()}
    return JSONResponse({**answer, "task_id": task.id, "job_id": task.id}, headers=headers)
