"""What the queen is asked to do with a node: followed line by line to its outcome."""

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from rbee_keeper import exit_codes
from rbee_keeper.nodes.host_keys import confirmed_fingerprint
from rbee_keeper.nodes.views import NodeTexts, found, where
from rbee_keeper.render import Screen
from rbee_keeper.voice import Voice
from rbee_keeper.wire_forms import fields_of, read_as
from rbee_shared.contracts.nodes import NodeAction, NodeOrder, NodeOutcome, NodeView, TrustOrder
from rbee_shared.errors import SshHostKeyChangedError, SshHostKeyUnknownError
from rbee_shared.queen_wire import EventSource
from rbee_shared.redaction import printable_line
from rbee_shared.steering_api import SteeringApi

_WAITING = {
    "test": "the test of {}",
    "start": "the hive at {} to wake up",
    "stop": "the hive at {} to stop",
    "install": "rbee to be installed on {}",
    "update": "{} to be updated",
    "uninstall": "rbee to be removed from {}",
    "wheelhouse": "the wheelhouse for {}",
    "drain": "{} to be drained",
    "resume": "{} to be used again",
}
_DONE = {
    "test": "{} can be used",
    "start": "the hive at {} is awake",
    "stop": "the hive at {} is stopped",
    "install": "rbee is installed on {}",
    "update": "{} is up to date",
    "uninstall": "rbee is gone from {}",
    "wheelhouse": "the wheelhouse for {} is made",
    "drain": "{} gets no new work",
    "resume": "{} gets work again",
}


@dataclass(frozen=True)
class Action:
    """One of the actions that need no question."""

    node: str
    verb: str
    options: NodeAction = field(default_factory=NodeAction)

    @property
    def waiting_for(self) -> str:
        return _WAITING[self.verb].format(self.node)

    @property
    def is_done(self) -> str:
        """What is true now."""
        if self.verb == "update" and self.options.check:
            return f"what an update of {self.node} would do"
        return _DONE[self.verb].format(self.node)

    async def perform(self, queen: SteeringApi, voice: Voice) -> NodeOutcome:
        """Have the queen do it."""
        return await _outcome(queen.act_on_node(self.node, self.verb, fields_of(self.options)), voice)

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        screen.wait_for(self.waiting_for)
        return _present(screen, self.is_done, await self.perform(queen, Voice(screen)))


@dataclass(frozen=True)
class Adding:
    """`node add`. A key that nobody confirmed yet is shown and asked about; a changed one is for `node trust`."""

    order: NodeOrder

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        try:
            outcome = await self._perform(queen, screen, self.order)
        except SshHostKeyUnknownError as refusal:
            if self.order.fingerprint is not None:
                raise
            fingerprint = await confirmed_fingerprint(screen, refusal)
            confirmed = self.order.model_copy(update={"fingerprint": fingerprint})
            outcome = await self._perform(queen, screen, confirmed)
        reached = f"{where(outcome.node)}, by {outcome.node.transport}"
        return _present(screen, f"{outcome.node.name} is in the catalog ({reached})", outcome)

    async def _perform(self, queen: SteeringApi, screen: Screen, order: NodeOrder) -> NodeOutcome:
        screen.wait_for(f"{order.name} to answer")
        return await _outcome(queen.add_node(fields_of(order)), Voice(screen))


@dataclass(frozen=True)
class Trusting:
    """`node trust`: both keys are shown, and somebody says yes to the one that the machine shows now."""

    node: str
    order: TrustOrder

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        try:
            outcome = await self._perform(queen, screen, self.order)
        except (SshHostKeyUnknownError, SshHostKeyChangedError) as refusal:
            if self.order.fingerprint is not None:
                raise
            confirmed = TrustOrder(fingerprint=await confirmed_fingerprint(screen, refusal))
            outcome = await self._perform(queen, screen, confirmed)
        return _present(screen, f"the host key of {self.node} is trusted", outcome)

    async def _perform(self, queen: SteeringApi, screen: Screen, order: TrustOrder) -> NodeOutcome:
        screen.wait_for(f"{self.node} to show its key")
        return await _outcome(queen.act_on_node(self.node, "trust", fields_of(order)), Voice(screen))


@dataclass(frozen=True)
class Removing:
    """`node remove`."""

    node: str

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        screen.wait_for(f"{self.node} to be let go of")
        outcome = await _outcome(queen.remove_node(self.node), Voice(screen))
        return _present(screen, f"{self.node} is no longer in the catalog", outcome)


async def list_nodes(queen: SteeringApi, screen: Screen) -> int:
    """Every node of her catalog."""
    nodes = [read_as(NodeView, row, who="the queen") for row in await queen.nodes()]
    document = {"nodes": [node.model_dump(mode="json") for node in nodes]}
    screen.present(document, lambda _: _texts().table(nodes))
    return exit_codes.DONE


@dataclass(frozen=True)
class Showing:
    """`node show`."""

    node: str

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        node = read_as(NodeView, await queen.node(self.node), who="the queen")
        screen.present(node.model_dump(mode="json"), lambda width: _texts().node(node, width))
        return exit_codes.DONE


def text_of(told: str, outcome: NodeOutcome, width: int) -> str:
    """What is true now, and below it what was found out."""
    return "\n".join([printable_line(told), *([found(outcome.facts, width)] if outcome.facts else [])])


def _present(screen: Screen, told: str, outcome: NodeOutcome) -> int:
    screen.present(outcome.model_dump(mode="json"), lambda width: text_of(told, outcome, width))
    return exit_codes.DONE


async def _outcome(events: AbstractAsyncContextManager[EventSource], voice: Voice) -> NodeOutcome:
    async with events as source:
        return read_as(NodeOutcome, await voice.follow(source), who="the queen")


def _texts() -> NodeTexts:
    return NodeTexts(time.time_ns() // 1_000_000)
