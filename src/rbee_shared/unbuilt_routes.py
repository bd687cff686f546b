"""Routes that the protocol plans and this version does not have: told apart from routes that nobody knows."""

from typing import NoReturn

from fastapi import APIRouter, Request

from rbee_shared.errors import NotSupportedError


def unbuilt_routes(*routes: str) -> APIRouter:
    """Refuse each of `routes` (`"GET|DELETE /v2/sessions/{id}"`) with `NOT_SUPPORTED`."""
    router = APIRouter()
    for route in routes:
        methods, path = route.split()
        router.add_api_route(path, _refuse, methods=methods.split("|"), response_model=None, include_in_schema=False)
    return router


async def _refuse(request: Request) -> NoReturn:
    raise NotSupportedError(
        f"{request.method} {request.scope['path']} is not built yet",
        hint="CHANGELOG.md says what this version can do, docs/protocol.md lists its routes.",
    )
