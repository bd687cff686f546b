"""What routes ask for: the services, the caller's right, the caller's key."""

from typing import Annotated

from fastapi import Depends, Request

from rbee_hive.services import Services
from rbee_shared.auth import require_bearer
from rbee_shared.errors import MissingApiKeyError


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


async def require_token(request: Request, here: ServicesDep) -> None:
    """The caller has the cluster's token."""
    require_bearer(request.headers.get("authorization"), here.token)


async def worker_key(request: Request) -> str:
    """The key that a worker sends; whose it is the registry knows.

    Raises:
        MissingApiKeyError: none was sent.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise MissingApiKeyError("this route wants the worker's own key")
    return key.strip()


WorkerKeyDep = Annotated[str, Depends(worker_key)]
