"""What a hive fetches or makes for somebody who waits for it, shown to him: narration, progress, the outcome.

Guarantees: returns what the hive has made, or raises the hive's own error. Leaving it early leaves the provision: the
hive cancels the work when nobody else waits for it.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import anyio
from pydantic import ValidationError

from queen_rbee.hive_client import HiveClient
from queen_rbee.relay import answer_of
from rbee_shared import sse
from rbee_shared.contracts.provisions import ProvisionAnswer, ProvisionEnd
from rbee_shared.errors import BadPeerError, NodeUnreachableError, error_from_body
from rbee_shared.event_log import EventLog
from rbee_shared.hive_advice import told_from_afar
from rbee_shared.http_client import bearer
from rbee_shared.narration import Narration, Sink

_LOG = logging.getLogger("rbee.queen.provisions")
_TRIES = 3
_PAUSE_S = 0.2
_REFUSED = 400


class Audience(Protocol):
    """A task or an errand: something that is followed by people."""

    log: EventLog

    def hear(self, narration: Narration) -> None: ...


@dataclass(frozen=True)
class ProvisionFeed:
    """Follows provisions of hives. `publish`: the whole cluster hears their narration too."""

    session: aiohttp.ClientSession
    publish: Sink

    async def outcome(self, hive: HiveClient, answer: ProvisionAnswer, audience: Audience, node: str) -> ProvisionEnd:
        """Relay its events to the audience until its end.

        Raises:
            RbeeError: the hive's own, why it could not be done.
            NodeUnreachableError: the hive is gone.
        """
        follower = _Follower(audience, node, self.publish)
        failure, tries = "it ended its stream before the end", 0
        while tries < _TRIES:
            seen = follower.last_id
            try:
                if (end := await self._follow(hive, answer, follower)) is not None:
                    return end
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = str(error) or type(error).__name__
                _LOG.info("the events of %s broke off: %s", answer.provision_id, failure)
            tries = tries + 1 if follower.last_id == seen else 0  # a connection that brought something was a good one
            await anyio.sleep(_PAUSE_S)
        raise NodeUnreachableError(f"the hive at {node} does not tell how far it is: {failure}")

    async def _follow(self, hive: HiveClient, answer: ProvisionAnswer, follower: "_Follower") -> ProvisionEnd | None:
        """None when the stream broke off."""
        headers = {**bearer(hive.token), "Last-Event-ID": follower.last_id}
        splitter = sse.FrameSplitter()
        async with self.session.get(hive.url + answer.events_url, headers=headers) as response:
            if response.status >= _REFUSED:
                await answer_of(response, f"GET {response.url.path}")
            while chunk := await response.content.readany():
                for frame in splitter.feed(chunk):
                    if (end := follower.take(frame)) is not None:
                        return end
        return None


@dataclass
class _Follower:
    """Shows one provision to one audience, from wherever the connection was lost."""

    audience: Audience
    node: str
    publish: Sink
    last_id: str = "0"

    def take(self, frame: sse.Frame) -> ProvisionEnd | None:
        """The end, when `frame` is it."""
        self.last_id = frame.id or self.last_id
        match frame.event:
            case "narration":
                narration = Narration.from_dict(frame.json()).on_node(self.node)
                self.audience.hear(narration)
                self.publish(narration)
            case "progress":
                self.audience.log.append(sse.encode("progress", frame.json()), droppable=True)
            case "error":
                raise told_from_afar(error_from_body(frame.json()), self.node)
            case "end":
                return _end_of(frame)
        return None


def _end_of(frame: sse.Frame) -> ProvisionEnd:
    try:
        return ProvisionEnd.model_validate(frame.json())
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise BadPeerError(f"what a hive says it has made is not as it should be: {wrong}") from None
