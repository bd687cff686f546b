"""Brings waiting tasks and workers together, first in, first out for each model.

A task takes its place in line when it begins, and is decided for once it is prepared (its hive is up, its model known):
a later task for the same model never overtakes it meanwhile. The one place where slots and loads are promised: `match`
looks at the whole queue and the whole cluster without an await, asks the pure scheduler about each waiting task in
order, and notes what it promised before it looks at the next.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import anyio

from queen_rbee.domain.facts import Cluster, DeviceFacts, Load, Wish
from queen_rbee.domain.scheduler import NodeLost, Refuse, SpawnWorker, UseWorker, Wait, place
from queen_rbee.task import Task
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.errors import BackendUnavailableError, NodeUnreachableError, RbeeError


@dataclass(eq=False)
class Place:
    """A task's place in line."""

    task: Task
    asked_for: str
    prepared: bool = False
    decided: anyio.Event = field(default_factory=anyio.Event)
    placement: UseWorker | SpawnWorker | None = None
    error: RbeeError | None = None
    told: tuple[int, str] | None = None

    def decide(self, placement: UseWorker | SpawnWorker) -> None:
        self.placement = placement
        self.decided.set()

    def refuse(self, error: RbeeError) -> None:
        self.error = error
        self.decided.set()

    def waits_for(self, wish: Wish) -> bool:
        return self.prepared and not self.decided.is_set() and self.task.wish == wish

    def tell(self, position: int, reason: str) -> None:
        if self.told != (position, reason):
            self.told = (position, reason)
            self.task.queued(position, reason)
            self.task.now(f"waiting in line at position {position}: {reason}")


class Matchmaker:
    """Holds the line of waiting tasks, and the loads in progress.

    `devices`: of every node that may be given work; `silent`: nodes that may not at the moment.
    """

    def __init__(
        self,
        devices: Callable[[], tuple[DeviceFacts, ...]],
        silent: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self.workers = WorkerRegistry(self.match)
        self._devices = devices
        self._silent = silent
        self._line: list[Place] = []
        self._loads: dict[str, Load] = {}

    @contextmanager
    def in_line(self, task: Task) -> Generator[Place]:
        """Keep the task's place in line for the length of the block."""
        place_in_line = Place(task, task.wish.model_ref)
        self._line.append(place_in_line)
        try:
            yield place_in_line
        finally:
            self._line.remove(place_in_line)
            self._loads.pop(task.id, None)
            self.workers.release(task.id)

    async def placement(self, waiting: Place) -> UseWorker | SpawnWorker:
        """Wait until the task has a worker's slot, or is the one to start a worker. Both are its own while in line.

        Raises:
            BackendUnavailableError: no device of the node answers to the wish.
            NodeUnreachableError: the node has gone meanwhile.
            RbeeError: the load that this task was waiting for failed.
        """
        waiting.prepared = True
        self.match()
        await waiting.decided.wait()
        if waiting.placement is None:
            assert waiting.error is not None
            raise waiting.error
        return waiting.placement

    def match(self) -> None:
        """Decide for everybody who can be decided for."""
        position = 0
        unprepared: set[str] = set()
        cluster: Cluster | None = None
        for waiting in self._line:
            if not waiting.prepared:
                unprepared.add(waiting.asked_for)
            if waiting.decided.is_set() or waiting.asked_for in unprepared:
                continue
            cluster = cluster or self.cluster()
            decision = place(waiting.task.wish, cluster)
            if isinstance(decision, Wait):
                position += 1
                waiting.tell(position, decision.reason)
            else:
                self._settle(waiting, decision)
                cluster = None  # what was promised is no longer there for the next one

    def _settle(self, waiting: Place, decision: UseWorker | SpawnWorker | Refuse | NodeLost) -> None:
        match decision:
            case UseWorker(worker_id=worker_id):
                self.workers.promise(worker_id, waiting.task.id)
                waiting.decide(decision)
            case SpawnWorker(device=device):
                self._loads[waiting.task.id] = Load(device.node, waiting.task.wish.model_ref, device.id)
                waiting.decide(decision)
            case Refuse(reason=reason):
                waiting.refuse(BackendUnavailableError(reason))
            case NodeLost(reason=reason):
                waiting.refuse(NodeUnreachableError(reason))

    def cluster(self) -> Cluster:
        """What is known at this moment."""
        return Cluster(self._devices(), self.workers.facts(), tuple(self._loads.values()), self._silent())

    def rename_model(self, asked: str, canonical: str) -> None:
        """A reference has turned out to mean that model: whoever asked for it waits for that one from now on."""
        for waiting in self._line:
            if waiting.task.wish.model_ref == asked:
                waiting.task.wish = replace(waiting.task.wish, model_ref=canonical)
        self._loads = {
            task_id: replace(load, model_ref=canonical) if load.model_ref == asked else load
            for task_id, load in self._loads.items()
        }

    def load_done(self, task: Task) -> None:
        """The worker that `task` started is in the registry now."""
        if self._loads.pop(task.id, None) is not None:
            self.match()

    def load_failed(self, task: Task, error: RbeeError) -> None:
        """Whoever waited for that load with the same wish would fail in the same way: they share its error."""
        load = self._loads.pop(task.id, None)
        for waiting in self._line:
            if load is not None and waiting.waits_for(task.wish):
                waiting.refuse(error)
        self.match()
