"""Answers in progress: slots, early ends in every phase, and how often a count is told."""

import json
from dataclasses import dataclass, field

import pytest

from llm_worker_rbee.domain.engine_events import Device, DeviceReady, Emitted, EngineFailed, Failed, Finished, Order
from llm_worker_rbee.jobs import Job, Jobs
from llm_worker_rbee.load_state import LoadState
from llm_worker_rbee.metrics import Metrics
from rbee_shared.contracts.tasks import ExecuteRequest, StopReason
from rbee_shared.errors import (
    AllSlotsBusyError,
    AlreadyExistsError,
    InternalError,
    ModelInvalidError,
    TaskNotFoundError,
    WorkerCrashedError,
)
from rbee_shared.sse import Frame, FrameSplitter

REQUEST = ExecuteRequest(prompt="x")


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
    jobs.begin(job, REQUEST, (1, 2))
    jobs.leave(job)

    assert engine.cancelled == [job.key]
    assert jobs.busy == 1
    jobs.handle(finished(job, StopReason.CANCELLED))
    assert jobs.busy == 0


async def test_cancel_while_the_prompt_is_tokenized(jobs: Jobs, engine: RecordingEngine) -> None:
    job = jobs.admit("a")
    jobs.cancel("a")
    assert engine.cancelled == []
    jobs.begin(job, REQUEST, (1, 2))

    assert engine.cancelled == [job.key]
    jobs.handle(finished(job, StopReason.CANCELLED, tokens=0))
    with pytest.raises(TaskNotFoundError):
        jobs.cancel("a")


async def test_an_answer_that_fails(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, REQUEST, (1,))
    jobs.handle(Failed(job.key, InternalError("llama_decode failed with -3")))

    assert [frame.event for frame in await stream(job)] == ["error", "message"]
    assert jobs.busy == 0


async def test_there_is_one_terminal_event(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, REQUEST, (1,))
    jobs.fail_all(WorkerCrashedError("the engine died"))
    jobs.fail_all(WorkerCrashedError("the engine died"))
    jobs.handle(Emitted(job.key, "late", (7,), 1))
    jobs.handle(finished(job))

    assert [frame.event for frame in await stream(job)] == ["error", "message"]


async def test_a_count_is_told_at_ten_tokens_and_then_sparsely(jobs: Jobs) -> None:
    job = jobs.admit("a")
    jobs.begin(job, REQUEST, (1,))
    for number in range(1, 500):
        jobs.handle(Emitted(job.key, "x", (number,), number))
    jobs.handle(finished(job, tokens=499))
    frames = await stream(job)
    said = [frame.json()["human"] for frame in frames if frame.event == "narration"]

    assert said == ["generated 10 tokens", "inference complete: 499 tokens in 2.0 s (250 tok/s)"]


async def test_a_seed_is_drawn_when_none_is_given(jobs: Jobs, engine: RecordingEngine) -> None:
    for name, seed in (("a", None), ("b", 7)):
        jobs.begin(jobs.admit(name), ExecuteRequest(prompt="x", seed=seed), (1,))
    drawn, given = (order.stages[-1].value for order in engine.orders)

    assert given == 7
    assert 0 <= drawn < 2**32 - 1


async def test_the_load_is_followed_from_where_it_is() -> None:
    load = LoadState(total_bytes=1000)
    assert load.handle(DeviceReady(Device("cpu", "cpu", 0, "a processor")))
    assert (await load.wait_device()).id == "cpu"
    load.handle(EngineFailed(ModelInvalidError("no")))
    with pytest.raises(ModelInvalidError):
        await load.wait_loaded()
    frames = FrameSplitter().feed(b"".join([chunk async for chunk in load.follow(5)]))

    assert [frame.event for frame in frames] == ["error", "message"]
    assert json.loads(frames[0].data)["code"] == "MODEL_INVALID"
