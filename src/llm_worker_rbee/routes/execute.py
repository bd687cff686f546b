"""Inference: one request, one stream; and its early end."""

import datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from llm_worker_rbee.dependencies import CancelBody, ExecuteBody, JobDep, ServicesDep
from llm_worker_rbee.domain.engine_events import Order
from llm_worker_rbee.job import Job
from llm_worker_rbee.services import Services
from rbee_shared import sse
from rbee_shared.contracts.tasks import ExecuteRequest
from rbee_shared.sse_response import EventStream

router = APIRouter()


@router.post("/execute", response_class=EventStream)
@router.post("/infer", response_class=EventStream, include_in_schema=False)
async def execute(request: ExecuteBody, job: JobDep, services: ServicesDep) -> EventStream:
    """Stream one answer: `started`, `token`s, then `end` or `error`, then `[DONE]`. Refusals are statuses."""
    order = await services.prepare(job, request)
    _introduce(job, request, order, services)
    services.jobs.begin(job, order)
    clocks = services.clocks
    return EventStream(job.frames(clocks.sse_ping_s), slow_client_s=clocks.slow_client_s)


@router.post("/cancel", status_code=202)
async def cancel(request: CancelBody, services: ServicesDep) -> JSONResponse:
    """End an answer within one token; its stream says CANCELLED. 404 when no such job is in progress."""
    services.jobs.cancel(request.job_id)
    return JSONResponse({"job_id": request.job_id, "status": "cancelling"}, status_code=202)


def _introduce(job: Job, request: ExecuteRequest, order: Order, services: Services) -> None:
    """The frames before those of the engine."""
    prompt_tokens = len(order.prepared.prompt)
    job.append(
        sse.encode(
            "started",
            {
                "job_id": job.job_id,
                "model": services.identity.model_ref,
                "worker_id": services.identity.worker_id,
                "device": services.device_id,
                "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            },
        )
    )
    characters = len(request.prompt or "") + sum(len(message.content or "") for message in request.messages or ())
    job.tell(
        "start",
        f"starting inference (prompt {characters} characters, at most {request.max_tokens} tokens)",
        cute="🚀",
        characters=characters,
        max_tokens=request.max_tokens,
    )
    job.tell(
        "tokenized",
        f"tokenized prompt ({prompt_tokens} tokens)",
        cute="🔤",
        tokenizer=True,
        prompt_tokens=prompt_tokens,
    )
    job.resume(order.prepared)
