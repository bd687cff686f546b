"""What routes ask for: the services, the caller's right, the caller's key."""

from typing import Annotated

from fastapi import Depends, Request

from rbee_hive.domain.epochs import parse_epoch, require_current_epoch
from rbee_hive.services import Services
from rbee_shared.auth import require_bearer
from rbee_shared.errors import MissingApiKeyError
from rbee_shared.http_wire import EPOCH_HEADER

_QUESTIONS = frozenset({"GET", "HEAD"})


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


async def require_token(request: Request, here: ServicesDep) -> None:
    """The caller has the cluster's token."""
    require_bearer(request.headers.get("authorization"), here.token)


async def require_epoch(request: Request, here: ServicesDep) -> None:
    """An order does not come from a queen that another start of hers has replaced. Questions may come from anybody.

    Raises:
        InvalidRequestError, StaleEpochError: see `domain.epochs`.
    """
    if request.method not in _QUESTIONS:
        require_current_epoch(parse_epoch(request.headers.get(EPOCH_HEADER)), here.link.epoch)


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
