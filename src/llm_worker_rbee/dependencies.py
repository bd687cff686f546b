"""What routes ask for: the services, and a slot for the length of a response."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, Request

from llm_worker_rbee.job import Job
from llm_worker_rbee.services import Services
from rbee_shared.auth import require_bearer
from rbee_shared.contracts.tasks import CancelRequest, ExecuteRequest
from rbee_shared.http_app import json_body, require_local_host


async def services_of(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def caller_is_allowed(request: Request, services: ServicesDep) -> None:
    """The queen with this worker's key; without a key any program of this machine, but no page in a browser."""
    if services.identity.api_key is not None:
        require_bearer(request.headers.get("authorization"), services.identity.api_key)
    else:
        require_local_host(request.headers, ())


ExecuteBody = Annotated[ExecuteRequest, Depends(json_body(ExecuteRequest))]
CancelBody = Annotated[CancelRequest, Depends(json_body(CancelRequest))]


async def admitted(request: ExecuteBody, services: ServicesDep) -> AsyncGenerator[Job]:
    """A job that holds a slot. Left when the response is over, however it ends: then an unfinished one is cancelled."""
    job = services.admit(request)
    try:
        yield job
    finally:
        services.jobs.leave(job)


JobDep = Annotated[Job, Depends(admitted)]
