"""Narration: what a program is doing, in words for the person who waits.

A line is made once, numbered by its process, and handed to exactly one sink: the daemon's stdout (outside a job) or
the job's own event stream. `render` is how every program prints one.
"""

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from rbee_shared.redaction import printable_line, redact, redact_all

Actor = Literal[
    "keeper",
    "queen",
    "hive",
    "model-provisioner",
    "llm-worker",
    "device-manager",
    "model-loader",
    "llama-backend",
    "tokenizer",
]
Level = Literal["info", "warning", "error"]

_MAX_HUMAN_CHARACTERS = 2000  # a record on a child's stdout is at most 64 KiB

ACTORS: tuple[str, ...] = get_args(Actor)
LEVELS: tuple[str, ...] = get_args(Level)

correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)
"""The user's request that the current task works for; set per HTTP request and per queen's task."""


@dataclass(frozen=True, slots=True)
class Narration:
    """One line. `human` is a whole sentence; `cute` is one emoji; `at_ms` is UNIX time."""

    actor: str
    action: str
    human: str
    cute: str | None = None
    level: str = "info"
    node: str | None = None
    at_ms: int = 0
    correlation_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The wire form: the data of a `narration` event, absent fields left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Narration":
        """Read a peer's line; what is missing or of the wrong type is replaced, never trusted."""
        actor, level, details = data.get("actor"), data.get("level"), data.get("details")
        at_ms, cute = data.get("at_ms"), data.get("cute")
        return cls(
            actor=actor if actor in ACTORS else "queen",
            action=str(data.get("action", "say")),
            human=printable_line(str(data.get("human", ""))),
            cute=printable_line(cute) if isinstance(cute, str) else None,
            level=level if level in LEVELS else "info",
            node=str(data["node"]) if data.get("node") else None,
            at_ms=at_ms if isinstance(at_ms, int) else 0,
            correlation_id=str(data["correlation_id"]) if data.get("correlation_id") else None,
            details=redact_all(details) if isinstance(details, Mapping) else {},
        )

    def on_node(self, node: str) -> "Narration":
        return self if self.node else replace(self, node=node)


Sink = Callable[[Narration], None]


class Narrator:
    """Speaks for one actor into one sink."""

    def __init__(self, actor: Actor, sink: Sink, *, node: str | None = None) -> None:
        self._actor = actor
        self._sink = sink
        self._node = node

    def tell(
        self,
        action: str,
        human: str,
        *,
        cute: str | None = None,
        level: Level = "info",
        correlation: str | None = None,
        **details: Any,
    ) -> None:
        """Say one line. Without `correlation` it belongs to the request that the current task works for."""
        self._sink(
            Narration(
                actor=self._actor,
                action=action,
                human=redact(printable_line(human))[:_MAX_HUMAN_CHARACTERS],
                cute=cute,
                level=level,
                node=self._node,
                at_ms=time.time_ns() // 1_000_000,
                correlation_id=correlation or correlation_id.get(),
                details=redact_all(details),
            )
        )

    def speaking_as(self, actor: Actor) -> "Narrator":
        """The same sink, in another part's name."""
        return Narrator(actor, self._sink, node=self._node)


def render(narration: Narration, *, fancy: bool) -> str:
    """`[actor] emoji text` for a terminal, `actor: text` for a pipe."""
    text = printable_line(narration.human)
    if narration.level != "info":
        text = f"{narration.level}: {text}"
    if not fancy:
        return f"{narration.actor}: {text}"
    cute = f"{narration.cute} " if narration.cute else ""
    return f"[{narration.actor}] {cute}{text}"
