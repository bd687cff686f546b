"""Answers in progress: slots, early ends in every phase, and how often a count is told."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from llm_worker_rbee.domain.detokenize import AnswerText, Visible
from llm_worker_rbee.domain.engine_events import (
    Begun,
    Device,
    DeviceReady,
    Emitted,
    EngineFailed,
    Failed,
    Finished,
    Order,
    Preempted,
    Prepared,
)
from llm_worker_rbee.job import Job
from llm_worker_rbee.jobs import Jobs
from llm_worker_rbee.load_state import LoadState
from llm_worker_rbee.metrics import Metrics
from rbee_shared.contracts.events import ChosenLogprob
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import (
    AllSlotsBusyError,
    AlreadyExistsError,
    InternalError,
    ModelInvalidError,
    TaskNotFoundError,
    WorkerCrashedError,
)
from rbee_shared.sse import Frame, FrameSplitter


@dataclass
class RecordingEngine:
    """Takes orders and does nothing: the test is the engine."""

    orders: list[Order] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)

    def submit(self, order: Order) -> None:
        self.orders.append(order)

    def cancel(self, key: int) -> None:
        self.cancelled.append(key)


@pytest.fixture
async def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
async def jobs(engine: RecordingEngine) -> Jobs:
    return Jobs(engine, slots=2, metrics=Metrics(), on_change=lambda: None)


def order(job: Job, **prepared: Any) -> Order:
    return Order(job.key, Prepared((1, 2), AnswerText(), **prepared), (), max_tokens=8)


def finished(job: Job, reason: StopReason = StopReason.EOS, tokens: int = 4) -> Finished:
    return Finished(job.key, reason, None, tokens, 10.0, 10.1, 12.0)


async def stream(job: Job) -> list[Frame]:
    splitter = FrameSplitter()
    return [frame async for chunk in job.frames(ping_s=5) for frame in splitter.feed(chunk)]


async def test_slots(jobs: Jobs) -> None:
    first = jobs.admit("a")
    with pytest.raises(AlreadyExistsError):
        jobs.admit("a")
    second = jobs.admit(None)
    with pytest.raises(AllSlotsBusyError):
        jobs.admit("c")
    jobs.leave(first)

    assert jobs.busy == 1
    assert second.job_id.startswith("job-")
    assert jobs.admit("a").job_id == "a"


async def test_the_slot_is_held_until_the_engine_lets_go(jobs: Jobs, engine: RecordingEngine) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    jobs.leave(job)

    assert engine.cancelled == [job.key]
    assert jobs.busy == 1
    jobs.handle(finished(job, StopReason.CANCELLED))
    assert jobs.busy == 0


async def test_cancel_while_the_prompt_is_tokenized(jobs: Jobs, engine: RecordingEngine) -> None:
    job = jobs.admit("a")
    jobs.cancel("a")
    assert engine.cancelled == []
    jobs.begin(job, order(job))

    assert engine.cancelled == [job.key]
    jobs.handle(finished(job, StopReason.CANCELLED, tokens=0))
    with pytest.raises(TaskNotFoundError):
        jobs.cancel("a")


async def test_an_answer_that_fails(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    jobs.handle(Failed(job.key, InternalError("llama_decode failed with -3")))

    assert [frame.event for frame in await stream(job)] == ["error", "message"]
    assert jobs.busy == 0


async def test_there_is_one_terminal_event(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    jobs.fail_all(WorkerCrashedError("the engine died"))
    jobs.fail_all(WorkerCrashedError("the engine died"))
    jobs.handle(Emitted(job.key, "late", (7,), 1))
    jobs.handle(finished(job))

    assert [frame.event for frame in await stream(job)] == ["error", "message"]


async def test_a_count_is_told_at_ten_tokens_and_then_sparsely(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    for number in range(1, 500):
        jobs.handle(Emitted(job.key, "x", (number,), number))
    jobs.handle(finished(job, tokens=499))
    frames = await stream(job)
    said = [frame.json()["human"] for frame in frames if frame.event == "narration"]

    assert said == ["generated 10 tokens", "inference complete: 499 tokens in 2.0 s (250 tok/s)"]


async def test_a_line_is_first_come_first_served(engine: RecordingEngine) -> None:
    jobs = Jobs(engine, slots=1, line=2, metrics=Metrics(), on_change=lambda: None)
    first, second, third = (jobs.admit(name) for name in "abc")
    with pytest.raises(AllSlotsBusyError) as refused:
        jobs.admit("d")
    for job in (second, first, third):
        jobs.begin(job, order(job))
    assert [ordered.key for ordered in engine.orders] == [second.key], "the first that was ready"
    assert (jobs.busy, jobs.waiting) == (1, 2)
    jobs.handle(finished(second))
    jobs.handle(Failed(first.key, InternalError("no")))

    assert [ordered.key for ordered in engine.orders] == [second.key, first.key, third.key]
    assert "2 more are waiting" in refused.value.message
    jobs.leave(third)
    jobs.handle(finished(third, StopReason.CANCELLED))
    assert (jobs.busy, jobs.waiting) == (0, 0)


@pytest.mark.parametrize("how", ["cancel", "leave", "cancelled while it was prepared"])
async def test_who_leaves_the_line_never_gets_to_the_engine(engine: RecordingEngine, how: str) -> None:
    jobs = Jobs(engine, slots=1, line=1, metrics=Metrics(), on_change=lambda: None)
    first, second = jobs.admit("a"), jobs.admit("b")
    jobs.begin(first, order(first))
    if how == "cancelled while it was prepared":
        jobs.cancel("b")
    jobs.begin(second, order(second))
    if how == "cancel":
        jobs.cancel("b")
    elif how == "leave":
        jobs.leave(second)
    frames = await stream(second) if how != "leave" else []
    jobs.handle(finished(first))

    assert [ordered.key for ordered in engine.orders] == [first.key]
    assert [frame.json()["stop_reason"] for frame in frames if frame.event == "end"] == ["CANCELLED"] * (how != "leave")
    assert jobs.busy == 0


async def test_the_cache_and_a_preemption_are_told(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    for event in (Begun(job.key, 3), Preempted(job.key), finished(job)):
        jobs.handle(event)
    said = [frame.json()["human"] for frame in await stream(job) if frame.event == "narration"]

    assert said[:2] == ["cache: 3 tokens reused", "waiting for room: other answers fill the context"]


async def test_log_probabilities_follow_their_token_frame(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, order(job))
    jobs.handle(Emitted(job.key, "x", (7,), 1, (ChosenLogprob(id=7, t="x", logprob=-0.5),)))
    jobs.handle(finished(job))
    token, logprobs = (await stream(job))[:2]

    assert (token.event, logprobs.event) == ("token", "logprobs")
    assert logprobs.json()["i"] == token.json()["i"] == 0
    assert logprobs.json()["tokens"] == [{"id": 7, "t": "x", "logprob": -0.5, "top": []}]


async def test_a_resumed_answer_goes_on_with_the_next_index(jobs: Jobs) -> None:
    job = jobs.admit("a")
    ordered = order(job, said=(5, 6, 7), frames=2, backlog=(Visible("held", ()),))
    jobs.begin(job, ordered)
    job.resume(ordered.prepared)
    jobs.handle(Emitted(job.key, "new", (8,), 4))
    jobs.handle(replace(finished(job, tokens=4), began_with=3))
    frames = await stream(job)

    assert [(f.json()["i"], f.json()["t"]) for f in frames if f.event == "token"] == [(2, "held"), (3, "new")]
    assert next(f.json()["human"] for f in frames if f.event == "narration").startswith("inference complete: 1 tokens")
    assert next(f.json()["tokens_out"] for f in frames if f.event == "end") == 4


async def test_the_load_is_followed_from_where_it_is() -> None:
    load = LoadState(total_bytes=1000)
    load.handle(DeviceReady(Device("cpu", "cpu", 0, "a processor")))
    assert (await load.wait_device()).id == "cpu"
    load.handle(EngineFailed(ModelInvalidError("no")))
    with pytest.raises(ModelInvalidError):
        await load.wait_loaded()
    frames = FrameSplitter().feed(b"".join([chunk async for chunk in load.follow(5)]))

    assert [frame.event for frame in frames] == ["error", "message"]
    assert json.loads(frames[0].data)["code"] == "MODEL_INVALID"
