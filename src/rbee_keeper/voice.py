"""What is heard of one node while the queen works at it: its lines and its progress, under its name among others.

A line that comes by two ways, the stream of what was asked for and that of the whole cluster, is shown once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rbee_keeper.render import Screen
from rbee_shared.errors import RbeeError, error_from_body
from rbee_shared.narration import Narration
from rbee_shared.queen_wire import EventSource

Take = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Voice:
    """`name` is empty where one node is asked alone: everything is about it. `heard` is shared among several."""

    screen: Screen
    name: str = ""
    heard: set[tuple[str, str, str, int]] = field(default_factory=set)

    def say(self, narration: Narration) -> None:
        """Show one line."""
        line = (narration.actor, narration.action, narration.human, narration.at_ms)
        if narration.at_ms and line in self.heard:
            return
        self.heard.add(line)
        about = f"{self.name}: " if self.name else ""
        text = narration.human if narration.human.startswith(about) else about + narration.human
        self.screen.say(replace(narration, human=text))

    def complain(self, error: RbeeError) -> None:
        """Show why this node failed."""
        self.screen.complain(error, about=self.name or None)

    async def follow(self, events: EventSource, take: Take | None = None) -> dict[str, Any]:
        """Show a stream; the data of its `end`.

        Args:
            take: gets the type and data of every event but the last.
        Raises:
            RbeeError: the one that its `error` carries.
        """
        try:
            async for event in events:
                if event.type == "error":
                    raise error_from_body(event.data)
                if event.type == "end":
                    return event.data
                self._hear(event.type, event.data)
                if take is not None:
                    take(event.type, event.data)
        finally:
            self.screen.progress_over(of=self.name)
        raise AssertionError("a stream of the queen's ends with `end` or `error`, or raises")

    def _hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """Kinds that this version does not know are none of a person's business."""
        if kind == "narration":
            self.say(Narration.from_dict(data))
        elif kind == "progress":
            self.screen.progress(data, of=self.name)
