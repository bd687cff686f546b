"""Asks the hives of one node or several at once, and shows what each of them answers.

One that fails does not hide the others; the exit status is the highest of theirs. Among several each line carries its
node's name. The document is `{"nodes": {NAME: its answer, or {"error"}}}`, also for one.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import anyio.abc

from rbee_keeper import exit_codes
from rbee_keeper.errand import Need, is_about_the_queen
from rbee_keeper.nodes.views import NodeTexts, failed_last, is_asleep
from rbee_keeper.pool.hive import Hive
from rbee_keeper.render import Screen
from rbee_keeper.voice import Voice
from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.nodes import NodeView
from rbee_shared.errors import RbeeError
from rbee_shared.hive_advice import told_from_afar
from rbee_shared.narration import Narration, correlation_id
from rbee_shared.redaction import printable_line
from rbee_shared.steering_api import SteeringApi

ALL = "all"
LOCALHOST = "localhost"
_MIN_WIDTH = 20


@dataclass(frozen=True)
class Answer:
    """What one node's hive answered, for programs and for people; `text` takes the width in columns."""

    document: dict[str, Any]
    text: Callable[[int], str]
    exit_status: int = exit_codes.DONE


def sentence(document: Wire, text: str) -> Answer:
    """An answer that people read as one line."""
    return Answer(document.model_dump(mode="json"), lambda _: printable_line(text))


@dataclass(frozen=True)
class Asking:
    """`if_asleep`: what stands for the answer of a hive that sleeps. An order has none: it wakes the hive."""

    hosts: tuple[str, ...]
    waiting_for: str
    ask: Callable[[Hive], Awaitable[Answer]]
    if_asleep: Callable[[NodeView], Answer] | None = None

    async def __call__(self, queen: SteeringApi, screen: Screen) -> int:
        screen.wait_for(self.waiting_for)
        names = await _names(queen, self.hosts)
        round_ = _Round(queen, screen, self, tuple(names))
        await round_.run()
        return round_.show()


def hosts_named(given: Sequence[str] | None) -> tuple[str, ...]:
    """The values of `--host`, each once; this machine where there are none."""
    return tuple(dict.fromkeys(given or (LOCALHOST,)))


def asleep(node: NodeView, exit_status: int = exit_codes.DONE) -> Answer:
    """A hive that sleeps, as an answer like any other: nothing runs there. Of one that failed nobody knows that."""
    if node.last_error is not None and failed_last(node):
        exit_status = exit_codes.exit_code(node.last_error.code, answer_begun=False)
    document = {"asleep": True, "last_seen_ms": node.last_seen_ms}
    return Answer(document, lambda _: NodeTexts(time.time_ns() // 1_000_000).asleep(node), exit_status)


def no_answer(node: NodeView) -> Answer:
    """A hive that sleeps, where only it could have told."""
    return asleep(node, exit_codes.UNREACHABLE)


@dataclass(frozen=True)
class Manner:
    """How a command goes to hives: which queen it needs, and what a hive that sleeps means to it."""

    need: Need
    if_asleep: Callable[[NodeView], Answer] | None


LOOKING = Manner(Need.READS, asleep)
"""What runs there? Nothing, is an answer."""
READING = Manner(Need.READS, no_answer)
"""What is there? Only the hive can tell."""
ORDERING = Manner(Need.CHANGES, None)
STARTING = Manner(Need.LEAVES_RUNNING, None)
STOPPING = Manner(Need.STOPS, asleep)


async def _names(queen: SteeringApi, hosts: Sequence[str]) -> list[str]:
    if ALL not in hosts:
        return list(hosts)
    names = [str(row.get("name", "")) for row in await queen.nodes()]
    return names or [LOCALHOST]


class _Round:
    """Every hive asked once, side by side."""

    def __init__(self, queen: SteeringApi, screen: Screen, asking: Asking, names: tuple[str, ...]) -> None:
        self._queen = queen
        self._screen = screen
        self._asking = asking
        self._names = names
        self._answers: dict[str, Answer] = {}
        self._errors: dict[str, RbeeError] = {}
        self._all = Voice(screen)

    async def run(self) -> None:
        """Ask them all.

        Raises:
            QueenLostError, ShuttingDownError: it is the queen who fails.
        """
        async with anyio.create_task_group() as group:
            await group.start(self._show_narration)
            async with anyio.create_task_group() as hives:
                for name in self._names:
                    hives.start_soon(self._ask, name)
            group.cancel_scope.cancel()
        if hers := next((error for error in self._errors.values() if is_about_the_queen(error)), None):
            raise hers

    def show(self) -> int:
        """Print what they said; the exit status."""
        statuses = [answer.exit_status for answer in self._answers.values()]
        for name, error in sorted(self._errors.items(), key=lambda failed: self._names.index(failed[0])):
            self._voice(name).complain(error)
            statuses.append(exit_codes.exit_code(error.code, answer_begun=False))
        if self._answers or self._screen.wants_json:
            self._screen.present({"nodes": {name: self._document(name) for name in self._names}}, self._text)
        return max(statuses)

    async def _ask(self, name: str) -> None:
        hive = Hive(self._queen, name, self._voice(name))
        try:
            self._answers[name] = await self._answer_of(hive)
        except RbeeError as error:
            self._errors[name] = told_from_afar(error, name)

    async def _answer_of(self, hive: Hive) -> Answer:
        if self._asking.if_asleep is not None and is_asleep(node := await hive.view()):
            return self._asking.if_asleep(node)
        return await self._asking.ask(hive)

    def _voice(self, name: str) -> Voice:
        return replace(self._all, name=name) if len(self._names) > 1 else self._all

    async def _show_narration(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """What the cluster says for this command's sake. Only for show, so it may fail."""
        begun = False
        try:
            async with self._queen.narration() as events:
                task_status.started()
                begun = True
                async for event in events:
                    if event.type == "narration" and event.data.get("correlation_id") == correlation_id.get():
                        line = Narration.from_dict(event.data)
                        self._voice(line.node or "").say(line)
        except RbeeError:
            if not begun:
                task_status.started()

    def _document(self, name: str) -> dict[str, Any]:
        error = self._errors.get(name)
        return self._answers[name].document if error is None else {"error": error.body()}

    def _text(self, width: int) -> str:
        blocks = [partial(self._block, name) for name in self._names if name in self._answers]
        return "\n".join(block(width) for block in blocks)

    def _block(self, name: str, width: int) -> str:
        if len(self._names) == 1:
            return self._answers[name].text(width)
        margin = f"{printable_line(name)}:".ljust(max(map(len, self._names)) + 2)
        lines = self._answers[name].text(max(width - len(margin), _MIN_WIDTH)).splitlines()
        return "\n".join(f"{margin}{line}".rstrip() for line in lines)
