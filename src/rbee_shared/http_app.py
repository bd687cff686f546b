"""What every daemon's HTTP app shares: error answers, correlation ids, bounded bodies, JSON bodies, route guards.

Plain ASGI middleware only: `BaseHTTPMiddleware` would sit in the path of every stream.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rbee_shared.contracts.faults import faults_as_error, invalid_request
from rbee_shared.errors import (
    AllSlotsBusyError,
    HostNotAllowedError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    QueueFullError,
    RbeeError,
    RequestTimeoutError,
)
from rbee_shared.http_wire import CORRELATION_HEADER
from rbee_shared.ids import is_safe_id, new_correlation_id
from rbee_shared.narration import correlation_id

_LOG = logging.getLogger("rbee.http")
MAX_BODY_BYTES = 1024 * 1024
_RETRY_AFTER_S = {QueueFullError: 5, AllSlotsBusyError: 1}
_DISCARDED_BYTES = 64 * 1024 * 1024
_BODY_LEFT_UNREAD = {PayloadTooLargeError.http_status, RequestTimeoutError.http_status}
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

ModelT = TypeVar("ModelT", bound=BaseModel)


def new_app(title: str, version: str, *, source: str, body_s: float) -> FastAPI:
    """An app without routes that answers errors in rbee's form. `source` names this daemon in them."""
    app = FastAPI(title=title, version=version, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.source = source
    app.add_exception_handler(RbeeError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_unforeseen)
    app.add_middleware(_RequestBounds, body_s=body_s)
    app.add_middleware(_Correlation)
    return app


def error_response(error: RbeeError, source: str) -> JSONResponse:
    """The HTTP answer for an error."""
    body = {**error.body(), "correlation_id": correlation_id.get(), "source": error.source or source}
    retry_after = _RETRY_AFTER_S.get(type(error))
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    if error.http_status in _BODY_LEFT_UNREAD:
        headers["Connection"] = "close"
    return JSONResponse({"error": body}, status_code=error.http_status, headers=headers)


def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RbeeError)
    return error_response(error, request.app.state.source)


def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.scope['path']}"
    known: dict[int, RbeeError] = {
        404: NotFoundError(f"there is no route {where}"),
        405: MethodNotAllowedError(f"{where}: not with this method"),
    }
    return _answer_error(request, known.get(error.status_code) or InvalidRequestError(f"{where}: {error.detail}"))


def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer_error(request, faults_as_error(error.errors()))


def _answer_unforeseen(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("unforeseen failure in %s", request.scope["path"], exc_info=error)
    response = _answer_error(request, InternalError(f"{type(error).__name__} in {request.scope['path']}"))
    response.headers[CORRELATION_HEADER] = correlation_id.get() or ""  # this answer is made outside the middleware
    return response


class _Correlation:
    """Takes the caller's correlation id or makes one; returns it; everything below narrates and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(CORRELATION_HEADER, "")
        current = sent if is_safe_id(sent) else new_correlation_id()
        correlation_id.set(current)  # each request runs in a task, and so in a context, of its own

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (CORRELATION_HEADER.lower().encode(), current.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)


class _RequestBounds:
    """A body is at most 1 MiB and arrives within `body_s`."""

    def __init__(self, app: ASGIApp, body_s: float) -> None:
        self._app = app
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(receive, self._body_s)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            if "expect" not in headers and int(declared) <= _DISCARDED_BYTES:
                await body.discard()
            error = PayloadTooLargeError(f"the request's body has {declared} bytes, at most {MAX_BODY_BYTES} are taken")
            await error_response(error, scope["app"].state.source)(scope, receive, send)
            return
        await self._app(scope, body.receive, send)


class _BoundedBody:
    """One request's body as it comes.

    A body that is too large is read to its end all the same (up to a bound) and thrown away: to a client that is still
    sending, an answer followed by a hang-up looks like a broken connection.
    """

    def __init__(self, receive: Receive, body_s: float) -> None:
        self._receive = receive
        self._body_s = body_s
        self._deadline = anyio.current_time() + body_s
        self._size = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        message = await self._next()
        if self._size > MAX_BODY_BYTES:
            await self.discard()
            raise PayloadTooLargeError("the request's body is larger than 1 MiB")
        return message

    async def discard(self) -> None:
        """Read the rest and forget it; give up at the deadline."""
        with suppress(RequestTimeoutError):
            while not self._complete and self._size < _DISCARDED_BYTES:
                await self._next()

    async def _next(self) -> Message:
        with anyio.move_on_after(max(0.0, self._deadline - anyio.current_time())):
            message = await self._receive()
            self._size += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            return message
        raise RequestTimeoutError(f"the request's body did not arrive within {self._body_s:.0f} s")


def json_body(model: type[ModelT], *, may_be_empty: bool = False) -> Callable[[Request], Awaitable[ModelT]]:
    """A dependency that reads `model` from the body, whatever Content-Type curl put on it.

    `may_be_empty`: no body at all is an object without fields.

    Raises:
        InvalidRequestError: the body is not JSON, or has wrong values; all of them stand in `details.errors`.
    """

    async def read(request: Request) -> ModelT:
        body = await request.body()
        return parse_body(model, b"{}" if may_be_empty and not body.strip() else body)

    return read


def parse_body(model: type[ModelT], data: bytes) -> ModelT:
    """Read `model` from JSON bytes; see `json_body`."""
    try:
        return model.model_validate(json.loads(data))
    except ValidationError as error:
        raise invalid_request(error) from None
    except (ValueError, RecursionError) as error:
        fault = {"field": "", "constraint": "json", "message": str(error)}
        raise InvalidRequestError("the body is not JSON", details={"errors": [fault]}) from None


async def until_hung_up(request: Request, wait: Callable[[], Awaitable[object]]) -> None:
    """Return when `wait` does, or as soon as the client has hung up. The body has been read."""
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(hear)
        await wait()
        group.cancel_scope.cancel()


def require_local_host(headers: Headers, allowed_hosts: Iterable[str]) -> None:
    """Refuse a page in a browser of this machine that reaches for us under another name.

    A browser sends the name it was given as Host, and the page's own address as Origin: both must be ours.

    Raises:
        HostNotAllowedError: one of them is not.
    """
    hosts = _LOCAL_HOSTS | {host.lower() for host in allowed_hosts}
    _require_host(headers.get("host", ""), hosts)
    if origin := headers.get("origin"):
        _require_host(urlsplit(origin).netloc, hosts)


def _require_host(netloc: str, hosts: frozenset[str]) -> None:
    try:
        parts = urlsplit(f"//{netloc}")
        host = (parts.hostname or "").lower()
        plain = parts.netloc == netloc and parts.username is None
    except ValueError:
        host, plain = "", False
    if not plain or host not in hosts:
        raise HostNotAllowedError(f"{netloc or 'an empty host'!r} is not a host this daemon answers to")
