"""The hive's own API of any node, through the queen: the keeper's `pool` commands ask nobody else.

Bytes pass as they come, streams included. What only a queen may say to a hive is not passed on.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp

from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveEntry
from rbee_shared.errors import ForbiddenError, NodeUnreachableError
from rbee_shared.http_client import bearer
from rbee_shared.http_wire import EPOCH_HEADER

_QUEENS_OWN = frozenset({"v1/adopt", "v1/shutdown", "v1/workers/ready", "v1/heartbeat/workers"})
_PASSED_ON = ("accept", "content-type", "last-event-id", "x-correlation-id")
_PASSED_BACK = ("content-type", "cache-control", "retry-after", "x-rbee-capacity")


@dataclass(frozen=True)
class Call:
    """What is asked of a hive. `path` has no slash in front."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """`chunks` must be read to its end, or closed."""

    status: int
    headers: dict[str, str]
    chunks: AsyncGenerator[bytes]


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
        if call.path.rstrip("/") in _QUEENS_OWN or not call.path.startswith("v1/"):
            raise ForbiddenError(f"/{call.path[:64]} of a hive is not for this", hint="See docs/protocol.md.")
        url = f"{entry.url}/{call.path}" + (f"?{call.query}" if call.query else "")
        headers = {name: value for name, value in call.headers.items() if name in _PASSED_ON}
        headers |= {**bearer(self.contacts.identity.token), EPOCH_HEADER: str(entry.epoch)}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=self.patience_s)
        stack = AsyncExitStack()
        try:
            response = await stack.enter_async_context(
                self.session.request(call.method, url, data=call.body or None, headers=headers, timeout=timeout)
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NodeUnreachableError(f"the hive at {entry.node}: {str(error) or type(error).__name__}") from None
        kept = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
        return Answer(response.status, kept, _chunks(response, stack))


async def _chunks(response: aiohttp.ClientResponse, stack: AsyncExitStack) -> AsyncGenerator[bytes]:
    """A hive that breaks off in the middle ends the answer: whoever reads it misses its last event."""
    async with stack:
        try:
            while chunk := await response.content.readany():
                yield chunk
        except (aiohttp.ClientError, TimeoutError):
            return
