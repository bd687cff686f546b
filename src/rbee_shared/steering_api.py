"""The queen's API for who holds her token: her nodes, what she does with them, and each node's hive through her.

What she does takes as long as it takes (a machine wakes, a model is fetched): such a call or stream ends with her, not
by a clock. Orders to a hive wake it; asking one that sleeps is `NodeUnreachableError`.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from rbee_shared.queen_api import QueenApi
from rbee_shared.queen_wire import EventSource


class SteeringApi(QueenApi):
    """A `QueenApi` whose token is the cluster's."""

    async def node(self, name: str) -> dict[str, Any]:
        """One node as she sees it, by its name or address."""
        return await self._call("GET", _node(name))

    def add_node(self, order: Mapping[str, Any]) -> AbstractAsyncContextManager[EventSource]:
        """Take a node into her catalog, or change one; its events, to the last. Leaving the block early hangs up."""
        return self._streaming("POST", "/v2/nodes", body=order)

    def remove_node(self, name: str) -> AbstractAsyncContextManager[EventSource]:
        """Forget a node; the events, to the last."""
        return self._streaming("DELETE", _node(name))

    def act_on_node(
        self, name: str, action: str, options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[EventSource]:
        """`test`, `start`, `install`, …: the events, to the last. Leaving the block early ends what can be ended."""
        return self._streaming("POST", f"{_node(name)}/{quote(action, safe='')}", body=options)

    async def ask_hive(
        self,
        name: str,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer of that node's hive. `path` is the hive's own: `/v1/status`."""
        query = f"?{urlencode(params)}" if params else ""
        return await self._call_patiently(method, _hive(name, path) + query, body=body)

    def hive_events(self, name: str, path: str) -> AbstractAsyncContextManager[EventSource]:
        """An event stream of that node's hive, to its last event."""
        return self._streaming("GET", _hive(name, path))

    @asynccontextmanager
    async def narration(self) -> AsyncGenerator[EventSource]:
        """What the cluster says from now on, for the length of the block."""
        path = "/v2/events"
        async with (
            self._answer("GET", path, accept="text/event-stream") as answer,
            aclosing(self._batches(answer, f"GET {path}")) as batches,
        ):
            yield EventSource(batches)


def _node(name: str) -> str:
    return f"/v2/nodes/{quote(name, safe='')}"


def _hive(name: str, path: str) -> str:
    return f"{_node(name)}/pool{path}"
