"""One task from submit to end: its state, its event log, and the one way it may finish."""

import time
from collections.abc import Mapping
from typing import Any

import anyio

from queen_rbee.domain.facts import Wish
from queen_rbee.domain.resumption import Stretch
from queen_rbee.domain.task_state import FINISHED, advance
from rbee_shared import sse
from rbee_shared.contracts.tasks import TaskState, TaskView
from rbee_shared.errors import CancelledTaskError, RbeeError
from rbee_shared.event_log import EventLog
from rbee_shared.ids import new_task_id
from rbee_shared.narration import Narration, Narrator, Sink


class Task:
    """What the queen remembers of one inference."""

    def __init__(self, wish: Wish, *, correlation: str, sink: Sink, attached: bool) -> None:
        """`attached`: the submitter waits for the answer, so the task lives only as long as somebody does."""
        self.id = new_task_id()
        self.wish = wish
        self.asked_model = wish.model_ref
        """As the user wrote it; the wish takes on the name that the hive gives it."""
        self.correlation_id = correlation
        self.attached = attached
        self.followers: set[object] = set()
        self.log = EventLog()
        self.scope = anyio.CancelScope()
        self.finished = anyio.Event()
        self.cancel_requested = False
        self.worker_id: str | None = None
        self.receipt: dict[str, Any] = {}
        self.result: dict[str, Any] | None = None
        self.error: RbeeError | None = None
        self.tokens_seen = 0
        """Token frames in the log."""
        self.stretches: list[Stretch] = []
        self.is_interrupted = False
        """Its answer has begun, and no stream goes on with it at the moment: no worker will say how it ended."""
        self.doing = "waiting its turn"
        self.doing_since_s = time.monotonic()
        self._sink = sink
        self._state = TaskState.QUEUED
        self._submitted_at_ms = time.time_ns() // 1_000_000
        self._finished_at_ms: int | None = None

    @property
    def state(self) -> TaskState:
        return self._state

    @property
    def is_finished(self) -> bool:
        return self._state in FINISHED

    @property
    def has_started(self) -> bool:
        return self._state is TaskState.RUNNING

    @property
    def narrator(self) -> Narrator:
        """The queen speaking about this task: to its readers and to the whole cluster's stream."""
        return Narrator("queen", self._narrate)

    def enter(self, state: TaskState, doing: str) -> None:
        """Move on; `doing` completes the sentence "still …" when nothing else happens for a while."""
        self._state = advance(self._state, state)
        self.now(doing)

    def now(self, doing: str) -> None:
        self.doing, self.doing_since_s = doing, time.monotonic()

    def hear(self, narration: Narration) -> None:
        """Show a line of another program that works for this task."""
        self.log.append(sse.encode("narration", narration.to_dict()), droppable=True)

    def queued(self, position: int, reason: str) -> None:
        self.log.append(sse.encode("queued", {"position": position, "reason": reason}), droppable=True)

    def complete(self, end: Mapping[str, Any]) -> None:
        """Finish with the worker's `end` event. The first finish counts."""
        if self.is_finished:
            return
        self.result = {**end, "task_id": self.id, "receipt": self.receipt}
        state = TaskState.CANCELLED if end.get("stop_reason") == "CANCELLED" else TaskState.COMPLETED
        self._finish(state, sse.encode("end", self.result))

    def fail(self, error: RbeeError) -> None:
        """Finish with an error. The first finish counts; later ones change nothing."""
        if self.is_finished:
            return
        self.error = error
        cancelled = isinstance(error, CancelledTaskError)
        facts = {"task_id": self.id, "job_id": self.id, **error.body()}
        self._finish(TaskState.CANCELLED if cancelled else TaskState.FAILED, sse.encode("error", facts))

    def answer_text(self) -> str:
        """All text of the answer so far.

        Raises:
            BadPeerError: the worker sent a token that is none.
        """
        frames = sse.FrameSplitter().feed(self.log.everything())
        return "".join(str(frame.json().get("t", "")) for frame in frames if frame.event == "token")

    def view(self) -> TaskView:
        return TaskView(
            task_id=self.id,
            job_id=self.id,
            status=self._state,
            model=self.wish.model_ref,
            node=self.wish.node,
            worker_id=self.worker_id,
            submitted_at_ms=self._submitted_at_ms,
            finished_at_ms=self._finished_at_ms,
            result=self.result,
            error=self.error.body() if self.error else None,
        )

    def _narrate(self, narration: Narration) -> None:
        self.hear(narration)
        self._sink(narration)

    def _finish(self, state: TaskState, last_frame: bytes) -> None:
        self._state = advance(self._state, state)
        self._finished_at_ms = time.time_ns() // 1_000_000
        self.log.append(last_frame)
        self.log.close()
        self.finished.set()
