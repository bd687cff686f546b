"""The hive's own API of any node, through the queen: the keeper's `pool` commands ask nobody else.

Bytes pass as they come, streams included. What only a queen may say to a hive is not passed on.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from yarl import URL

from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry
from rbee_shared.errors import ForbiddenError, NodeUnreachableError
from rbee_shared.http_client import bearer
from rbee_shared.http_wire import EPOCH_HEADER

_BASE = "v1/"
_QUEENS_OWN = frozenset({"v1/adopt", "v1/shutdown", "v1/workers/ready", "v1/heartbeat/workers"})
_PASSED_ON = ("accept", "content-type", "last-event-id", "x-correlation-id")
_PASSED_BACK = ("content-type", "cache-control", "retry-after", "x-rbee-capacity")


@dataclass(frozen=True)
class Call:
    """What is asked of a hive. `path` is decoded and has no slash in front, `query` is as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """`close` lets the hive go: to be called in any case, also where `chunks` was never begun."""

    status: int
    headers: dict[str, str]
    chunks: AsyncGenerator[bytes]
    close: Callable[[], None]


@dataclass(frozen=True)
class PoolProxy:
    """`patience_s`: how long a hive may be silent over a single answer (starting a worker takes long)."""

    contacts: HiveContacts
    session: aiohttp.ClientSession
    patience_s: float

    async def pass_on(self, entry: HiveEntry, call: Call) -> Answer:
        """Ask the hive, with the cluster's token.

        Raises:
            ForbiddenError: only a queen says that.
            NodeUnreachableError: the hive does not answer.
        """
        url = URL(f"{entry.url}/{_checked(call.path)}" + (f"?{call.query}" if call.query else ""), encoded=True)
        headers = {name: value for name, value in call.headers.items() if name in _PASSED_ON}
        headers |= {**bearer(self.contacts.identity.token), EPOCH_HEADER: str(entry.epoch)}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=self.patience_s)
        try:
            response = await self.session.request(
                call.method, url, data=call.body or None, headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnreachableError(f"the hive at {entry.node}: {str(error) or type(error).__name__}") from None
        kept = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
        return Answer(response.status, kept, _chunks(response), response.close)


def _checked(path: str) -> str:
    """`path`, encoded so that the hive reads exactly what is looked at here.

    Raises:
        ForbiddenError: it is not for this, or a library that normalises it could make of it one that is not.
    """
    odd = not {"", ".", ".."}.isdisjoint(path.split("/"))
    if odd or path in _QUEENS_OWN or not path.startswith(_BASE):
        raise ForbiddenError(f"/{path[:64]} of a hive is not for this", hint="See docs/protocol.md.")
    return quote(path)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """A hive that breaks off in the middle ends the answer: whoever reads it misses its last event."""
    try:
        while chunk := await response.content.readany():
            yield chunk
    except (aiohttp.ClientError, TimeoutError):
        return
