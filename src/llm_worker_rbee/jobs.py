"""The answers in progress: admission before the first byte, what the engine tells of them, and their end.

A job holds its slot from admission until the engine has let go of it, whoever hangs up in between. Beyond the slots
jobs wait in line where that is allowed, first come, first served. On the event loop only; nothing here waits for the
engine.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from typing import Protocol

import anyio

from llm_worker_rbee.domain.engine_events import (
    AnswerEvent,
    Begun,
    Emitted,
    Failed,
    Finished,
    Order,
)
from llm_worker_rbee.job import Job
from llm_worker_rbee.metrics import Metrics
from rbee_shared import sse
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import AllSlotsBusyError, AlreadyExistsError, RbeeError, TaskNotFoundError
from rbee_shared.units import format_seconds

_LOG = logging.getLogger("rbee.jobs")


class Engine(Protocol):
    """What a job needs of the engine."""

    def submit(self, order: Order) -> None: ...

    def cancel(self, key: int) -> None: ...


class Jobs:
    """All answers in progress, at most `slots`; `line` more may wait for one of them."""

    def __init__(
        self, engine: Engine, *, slots: int, line: int = 0, metrics: Metrics, on_change: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._on_change = on_change
        self._by_id: dict[str, Job] = {}
        self._by_key: dict[int, Job] = {}
        self._line: dict[int, Order] = {}
        self._places_in_line = line
        self._in_engine = 0
        self._keys = itertools.count(1)
        self._emptied = anyio.Event()
        self.slots = slots
        self.last_activity_s = time.time()

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return min(len(self._by_id), self.slots)

    @property
    def in_engine(self) -> int:
        """Jobs that the engine has and has not let go."""
        return self._in_engine

    @property
    def waiting(self) -> int:
        """Jobs in line for a slot."""
        return len(self._by_id) - self.busy

    def admit(self, job_id: str | None) -> Job:
        """Take a slot, or a place in the line.

        Raises:
            AlreadyExistsError: an answer of that id is in progress.
            AllSlotsBusyError: neither is free.
        """
        if job_id is not None and job_id in self._by_id:
            raise AlreadyExistsError(f"job {job_id} is in progress", hint="Choose another job_id.")
        if len(self._by_id) >= self.slots + self._places_in_line:
            self._metrics.refused()
            line = f", and {self._places_in_line} more are waiting" if self._places_in_line else ""
            raise AllSlotsBusyError(f"all {self.slots} slots are busy{line}", details={"slots_total": self.slots})
        job = Job(job_id or f"job-{secrets.token_hex(8)}", next(self._keys))
        self._by_id[job.job_id] = self._by_key[job.key] = job
        self._changed()
        return job

    def begin(self, job: Job, order: Order) -> None:
        """Hand the job to the engine, or let it wait for a slot."""
        job.prompt_tokens = len(order.prepared.prompt)
        job.submitted, job.ready_at_s = True, time.monotonic()
        self._metrics.begun(job.prompt_tokens)
        self._line[job.key] = order
        if self._in_engine >= self.slots:
            job.tell("waiting", f"waiting for a slot: all {self.slots} are busy", cute="🕒", ahead=len(self._line) - 1)
        self._fill()
        if job.cancelled:
            self._stop(job)

    def _fill(self) -> None:
        """Those that came first from the line into the engine."""
        while self._line and self._in_engine < self.slots:
            self._in_engine += 1
            self._engine.submit(self._line.pop(next(iter(self._line))))

    def cancel(self, job_id: str) -> None:
        """End an answer early; its stream says CANCELLED.

        Raises:
            TaskNotFoundError: no answer of that id is in progress.
        """
        job = self._by_id.get(job_id)
        if job is None:
            raise TaskNotFoundError(f"no job {job_id} is in progress", hint="It may have ended in the meantime.")
        self._stop(job)

    def leave(self, job: Job) -> None:
        """The response is over: complete, or its reader is gone."""
        if not job.submitted:
            self._remove(job)
        elif not job.ended:
            _LOG.info("the reader of job %s is gone", job.job_id)
            job.ended = True
            self._stop(job)

    def fail_all(self, error: RbeeError) -> None:
        """End every stream with an error; slots are freed when the engine lets go."""
        for job in list(self._by_id.values()):
            if not job.ended:
                self._metrics.failed()
                job.fail(error)
            self._stop(job)

    async def wait_idle(self) -> None:
        """Return when nothing is in progress."""
        while self._by_id:
            await self._emptied.wait()

    def handle(self, event: AnswerEvent) -> None:
        """Take what the engine says of one answer."""
        if isinstance(event, Emitted):
            self._token(self._by_key[event.key], event)
        elif isinstance(event, Begun):
            self._begun(self._by_key[event.key], event)
        elif isinstance(event, Finished):
            job = self._by_key[event.key]
            self._conclude(job, event)
            self._leave_engine(job)
        elif isinstance(event, Failed):
            job = self._by_key[event.key]
            self._metrics.failed()
            job.fail(event.error)
            self._leave_engine(job)
        else:
            self._metrics.preempted()
            self._by_key[event.key].tell(
                "preempted", "waiting for room: other answers fill the context", cute="🕒", level="warning"
            )

    def _token(self, job: Job, event: Emitted) -> None:
        now_s = time.monotonic()
        if job.last_token_at_s is None:
            self._metrics.first_token(now_s - job.received_at_s)
        else:
            self._metrics.token_gap(now_s - job.last_token_at_s)
        job.last_token_at_s = now_s
        job.token(event)

    def _begun(self, job: Job, event: Begun) -> None:
        self._metrics.waited(time.monotonic() - job.ready_at_s)
        cached = event.cached_tokens
        job.tell(
            "cache", f"cache: {cached} tokens reused" if cached else "cache: fresh", cute="🧠", cached_tokens=cached
        )

    def _conclude(self, job: Job, event: Finished) -> None:
        decode_s = event.finished_at_s - (event.prefilled_at_s or event.finished_at_s)
        ttft_s = (event.first_token_at_s or event.finished_at_s) - job.received_at_s
        made = event.tokens_out - event.began_with
        self._metrics.ended(event.stop_reason, made, decode_s, event.cached_tokens)
        per_s = made / decode_s if decode_s > 0 else 0.0
        _LOG.info("job %s: %d tokens, %s", job.job_id, event.tokens_out, event.stop_reason)
        job.tell(
            "complete",
            f"inference complete: {made} tokens in {format_seconds(decode_s)} ({per_s:.0f} tok/s)",
            cute="✅",
            tokens_out=event.tokens_out,
        )
        job.end(
            sse.encode(
                "end",
                {
                    "job_id": job.job_id,
                    "tokens_out": event.tokens_out,
                    "prompt_tokens": job.prompt_tokens,
                    "cached_tokens": event.cached_tokens,
                    "ttft_ms": round(ttft_s * 1000, 3),
                    "decode_time_ms": round(decode_s * 1000, 3),
                    "tokens_per_s": round(per_s, 1),
                    "stop_reason": event.stop_reason,
                    "stop_sequence_matched": event.stop_matched,
                },
            )
        )

    def _stop(self, job: Job) -> None:
        """The engine ends it; one that is still in line ends here."""
        job.cancelled = True
        if job.key in self._line:
            del self._line[job.key]
            if not job.ended:
                self._conclude(job, _nothing(job.key))
            self._remove(job)
        elif job.submitted:
            self._engine.cancel(job.key)

    def _leave_engine(self, job: Job) -> None:
        self._in_engine -= 1
        self._remove(job)
        self._fill()

    def _remove(self, job: Job) -> None:
        self._by_id.pop(job.job_id, None)
        self._by_key.pop(job.key, None)
        self._changed()
        if not self._by_id:
            self._emptied.set()
            self._emptied = anyio.Event()

    def _changed(self) -> None:
        self.last_activity_s = time.time()
        self._on_change()


def _nothing(key: int) -> Finished:
    """The end of an answer that never began."""
    return Finished(key, StopReason.CANCELLED, None, 0, None, None, time.monotonic())
