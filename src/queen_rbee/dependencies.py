"""What routes ask for: the services, and whether the caller may."""

from typing import Annotated

from fastapi import Depends, Request

from queen_rbee.services import Services
from rbee_shared.auth import require_bearer
from rbee_shared.http_app import require_local_host


def get_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def with_token(request: Request, services: ServicesDep) -> None:
    """The caller shows the cluster's token."""
    require_bearer(request.headers.get("authorization"), services.identity.token)


async def local_or_token(request: Request, services: ServicesDep) -> bool:
    """A program on this machine, or anyone with the token; whether it showed the token.

    A token that is sent must be right, even where none is wanted.
    """
    if "authorization" in request.headers or not services.settings.on_loopback:
        require_bearer(request.headers.get("authorization"), services.identity.token)
        return True
    require_local_host(request.headers, services.settings.allowed_hosts)
    return False


TrustedDep = Annotated[bool, Depends(local_or_token)]
