"""A real engine in this process: the thread that a worker runs, without its HTTP."""

import queue
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.worker import STORYTELLER

from llm_worker_rbee.domain.engine_events import (
    Begun,
    Emitted,
    EngineEvent,
    EngineFailed,
    Failed,
    Finished,
    Loaded,
    ModelFacts,
    Order,
    Preempted,
)
from llm_worker_rbee.engine.request import LoadRequest
from llm_worker_rbee.engine_thread import EngineThread
from rbee_shared.contracts.tasks import ExecuteRequest, StopReason

GENEROUS_S = 60.0


@dataclass
class Told:
    """What the engine told of one answer."""

    order: Order
    frames: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    logprobs: list[tuple[int, ...]] = field(default_factory=list)
    preemptions: int = 0
    end: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.frames)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for _, ids in self.frames for token in ids)

    @property
    def reason(self) -> StopReason:
        assert self.end is not None
        return self.end.stop_reason


class Engine:
    """Orders answers and collects what is told of them."""

    def __init__(self, thread: EngineThread, facts: ModelFacts, told: "queue.SimpleQueue[list[EngineEvent]]") -> None:
        self.thread = thread
        self.facts = facts
        self._told = told
        self._key = 0

    def order(self, **request: Any) -> Order:
        self._key += 1
        return self.thread.prepare(ExecuteRequest(**request), self._key)

    def answer(self, **request: Any) -> Told:
        (told,) = self.answers({"the": request}).values()
        return told

    def answers(self, requests: Mapping[Any, Mapping[str, Any]]) -> dict[Any, Told]:
        """All at once, each in a slot of its own."""
        told = {name: Told(self.order(**request)) for name, request in requests.items()}
        for one in told.values():
            self.thread.submit(one.order)
        self.follow({one.order.key: one for one in told.values()})
        return told

    def follow(self, told: Mapping[int, Told], *, until: Any = None) -> None:
        """Hear until every answer has ended, or until `until()` is true."""
        while any(one.end is None for one in told.values()) and not (until is not None and until()):
            for event in self._told.get(timeout=GENEROUS_S):
                self._hear(event, told)

    def _hear(self, event: EngineEvent, told: Mapping[int, Told]) -> None:
        if isinstance(event, Emitted):
            told[event.key].frames.append((event.text, event.ids))
            told[event.key].logprobs.append(tuple(entry.id for entry in event.logprobs))
        elif isinstance(event, Begun):
            told[event.key].begun.append(event)
        elif isinstance(event, Preempted):
            told[event.key].preemptions += 1
        elif isinstance(event, Finished):
            told[event.key].end = event
        elif isinstance(event, Failed | EngineFailed):
            raise event.error


@contextmanager
def running_engine(model: Path = STORYTELLER, **flags: Any) -> Generator[Engine]:
    """A loaded engine on the processor; its memory is free again afterwards."""
    told: queue.SimpleQueue[list[EngineEvent]] = queue.SimpleQueue()
    thread = EngineThread(replace(LoadRequest(model), **flags), "cpu", "0")
    thread.start(told.put)
    try:
        yield Engine(thread, _wait_loaded(told), told)
    finally:
        assert thread.close(GENEROUS_S)


def _wait_loaded(told: "queue.SimpleQueue[list[EngineEvent]]") -> ModelFacts:
    while True:
        for event in told.get(timeout=GENEROUS_S):
            if isinstance(event, EngineFailed):
                raise event.error
            if isinstance(event, Loaded):
                return event.model
