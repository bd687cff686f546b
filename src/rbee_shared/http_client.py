"""Control calls between the programs: JSON in, JSON out, every failure an `RbeeError`, every wait bounded.

The token path does not come through here: see `queen_rbee.relay`.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpcore2  # noqa: F401 - httpx2 would import it with the first client, in the event loop
import httpx2

from rbee_shared.errors import RbeeError, RequestTimeoutError
from rbee_shared.http_wire import CORRELATION_HEADER, bearer, read_answer

__all__ = ["CORRELATION_HEADER", "bearer", "call", "http_client", "read_answer"]

_MAX_PORT = 65_535


@asynccontextmanager
async def http_client(*, connect_s: float = 5.0, call_s: float | None = 10.0) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client that ignores proxy variables: an `HTTP_PROXY` must never see a loopback token.

    `call_s`: the longest silence while an answer is read; None for streams.
    """
    timeout = httpx2.Timeout(call_s, connect=connect_s, pool=connect_s)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16)
    # verify=False skips loading the CA bundle (94 ms); nothing here speaks https
    async with httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False, verify=False) as client:
        yield client


async def call(  # noqa: PLR0913 - a request has these parts
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    unreachable: type[RbeeError] = RbeeError,
) -> dict[str, Any]:
    """Call a peer and return its JSON object; `{}` for 204.

    Raises:
        RbeeError: the peer's own error, rebuilt; `unreachable` when it cannot be connected to; `RequestTimeoutError`
            when it connects and does not answer; `BadPeerError` when what comes back is not ours.
    """
    try:
        sent = {**bearer(token), **(headers or {})}
        response = await client.request(method, _address(url), headers=sent, json=body, params=params)
    except httpx2.ConnectTimeout:
        raise unreachable(f"{url}: no connection in time") from None
    except httpx2.TimeoutException:
        raise RequestTimeoutError(f"{method} {url}: no answer in time") from None
    except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
        raise unreachable(f"{url}: {str(error) or type(error).__name__}") from None
    return read_answer(response.status_code, response.content, what=f"{method} {url}")


def _address(url: str) -> httpx2.URL:
    address = httpx2.URL(url)
    if (address.port or 0) > _MAX_PORT:  # the socket would raise an OverflowError, in a group of errors
        raise httpx2.InvalidURL(f"there is no port {address.port}")
    return address
