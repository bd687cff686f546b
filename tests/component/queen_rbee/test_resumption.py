"""An answer whose connection is cut, wherever and however often, is one answer: no gap, no repeat, one end."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.scripted_gguf import TEMPLATE, Script, write_scripted
from tests.support.worker import KEY, RunningWorker, worker_process

from queen_rbee.domain.facts import Wish
from queen_rbee.relay import Relay, token_client
from queen_rbee.task import Task
from queen_rbee.worker_client import WorkerClient, own_address
from queen_rbee.worker_registry import WorkerRegistry
from rbee_shared.clocks import Clocks
from rbee_shared.contracts.tasks import TaskState
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import (
    BadPeerError,
    CancelledTaskError,
    NodeUnreachableError,
    RbeeError,
    StreamTruncatedError,
    WorkerCrashedError,
)
from rbee_shared.sse import FrameSplitter

NODE = "mac"
SILENCE_S = 0.6
CLOCKS = Clocks(hive_lease_s=2.0, hive_drain_s=0.5, connect_s=1.0)
STORY = {"prompt": "write a short story about a fox", "temperature": 0, "max_tokens": 24}


@dataclass
class Told:
    """What the readers of a task have."""

    task: Task
    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def answer(self) -> list[tuple[int, str, tuple[int, ...]]]:
        return [(token["i"], token["t"], tuple(token["ids"])) for token in self.of("token")]

    @property
    def end(self) -> dict[str, Any]:
        (end,) = self.of("end")
        assert self.events[-1] is end
        return end

    @property
    def said(self) -> list[str]:
        return [event["human"] for event in self.of("narration") if event["actor"] == "queen"]


@dataclass
class Bench:
    """A queen's side of one worker behind a proxy that cuts."""

    worker: RunningWorker
    proxy: CuttingProxy
    client: WorkerClient
    record: WorkerRecord
    moved_to: str | None = None
    inquiries: int = 0
    refused: list[RbeeError] = field(default_factory=list)

    def task(self) -> Task:
        task = Task(Wish("builtin:storyteller", NODE), correlation="c", sink=lambda _: None, attached=False)
        task.enter(TaskState.PREPARING, "preparing")
        self.client.workers.put(NODE, self.record, promised_to=task.id)
        return task

    async def run(self, task: Task, body: Mapping[str, Any]) -> Told:
        with anyio.fail_after(60):
            await self.client.execute(task, self.record, NODE, {**body, "job_id": task.id})
        return told(task)

    async def answer(self, body: Mapping[str, Any], *cuts: Cut) -> Told:
        self.proxy.cuts = list(cuts)
        return await self.run(self.task(), body)


def told(task: Task) -> Told:
    frames = FrameSplitter().feed(task.log.everything())
    assert [int(frame.id or 0) for frame in frames] == list(range(1, len(frames) + 1))
    return Told(task, [frame.json() for frame in frames])


@asynccontextmanager
async def benched(worker: RunningWorker) -> AsyncGenerator[Bench]:
    host, _, port = worker.url.removeprefix("http://").partition(":")
    async with cutting_proxy(host, int(port)) as proxy, token_client(connect_s=1, silence_s=SILENCE_S) as session:
        facts = {"id": "w1", "model_ref": "builtin:storyteller", "backend": "cpu", "device": "cpu", "pid": 1}
        times = {"started_at": 1.0, "last_activity": 1.0}
        record = WorkerRecord.model_validate({**facts, **times, "url": proxy.url, "state": "idle", "api_key": KEY})

        async def refresh(node: str) -> None:
            """What its hive would tell: how the process died, once it has."""
            assert node == NODE
            bench.inquiries += 1
            if worker.child.returncode is not None:
                error = {"code": "WORKER_CRASHED", "message": "worker w1 died (killed by SIGKILL)"}
                workers.update(NODE, [record.model_copy(update={"state": WorkerState.FAILED, "error": error})])

        async def address(node: str, url: str) -> str:
            assert (node, url) == (NODE, proxy.url)
            if bench.refused:
                raise bench.refused.pop()
            return bench.moved_to or await own_address(node, url)

        workers = WorkerRegistry(lambda: None)
        relay = Relay(session, lambda _: None)
        bench = Bench(worker, proxy, WorkerClient(session, relay, workers, CLOCKS, refresh, address), record)
        yield bench


@pytest.fixture(scope="module")
async def storyteller(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningWorker]:
    async with worker_process(tmp_path_factory.mktemp("home"), "--slots", "1") as worker:
        await worker.until_ready()
        yield worker


@pytest.fixture(scope="module")
async def spelling(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningWorker]:
    """A worker that says each byte with a token of its own."""
    home = tmp_path_factory.mktemp("home")
    model = write_scripted(home / "m.gguf", Script("añ€🐝z".encode(), template=TEMPLATE))
    async with worker_process(home, "--slots", "1", "--n-ctx", "256", model=model) as worker:
        await worker.until_ready()
        yield worker


@pytest.fixture(scope="module")
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningWorker]:
    """A worker for a test that kills it."""
    async with worker_process(tmp_path_factory.mktemp("home")) as worker:
        await worker.until_ready()
        yield worker


@pytest.fixture
async def bench(storyteller: RunningWorker) -> AsyncGenerator[Bench]:
    async with benched(storyteller) as bench:
        yield bench


def same(one: Told, whole: Told) -> None:
    """`one`, which was cut, is the answer that `whole` is."""
    assert one.answer == whole.answer
    assert len(one.of("started")) == 1
    counts = ("tokens_out", "prompt_tokens", "stop_reason", "stop_sequence_matched", "job_id", "task_id")
    assert {k: one.end[k] for k in counts[:4]} == {k: whole.end[k] for k in counts[:4]}
    assert one.end["job_id"] == one.end["task_id"] == one.task.id
    assert one.task.tokens_seen == len(one.answer)
    assert one.task.state is TaskState.COMPLETED
    assert not one.task.is_interrupted


async def length_bytes(bench: Bench, body: Mapping[str, Any]) -> int:
    """Of the whole HTTP answer, as nearly as its times and dates allow."""
    async with bench.worker.client.stream("POST", "/execute", json=dict(body)) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
        head = sum(len(name) + len(value) + 4 for name, value in response.headers.raw) + 20
    return head + len(raw)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_answer_cut_anywhere_is_the_answer(bench: Bench, how: Any) -> None:
    whole = await bench.answer(STORY)
    last = await length_bytes(bench, STORY)
    assert whole.task.receipt == {}
    for at in range(0, last, 29):
        bench.proxy.requests.clear()
        cut = await bench.answer(STORY, Cut(at, how))

        same(cut, whole)
        # the last bytes are `[DONE]`, which nobody waits for
        assert bench.proxy.count("/execute") > 1 or at > last - 60, at


async def test_any_byte_around_the_end_may_be_the_last_one(bench: Bench) -> None:
    whole = await bench.answer(STORY)
    last = await length_bytes(bench, STORY)
    for at in range(last - 420, last + 1, 7):
        same(await bench.answer(STORY, Cut(at)), whole)


async def test_twenty_cuts_in_one_answer(bench: Bench) -> None:
    body = {**STORY, "max_tokens": 60}
    whole = await bench.answer(body)

    one = await bench.answer(body, *(Cut(1300 + 5 * number, "reset") for number in range(20)))

    same(one, whole)
    assert bench.proxy.cuts == [], "all of them were made"
    assert one.task.receipt["interruptions"] > 10, "most of them after another token"


async def test_what_the_readers_are_told(bench: Bench) -> None:
    whole = await bench.answer(STORY)
    one = await bench.answer(STORY, Cut(1700))

    stretch, rest = one.task.stretches
    tokens = next(n for n, line in enumerate(one.said) if "broke off" in line)
    assert one.said[tokens : tokens + 2] == [
        f"the connection to mac broke off after {_broken_after(one)} tokens; going on where it left off",
        "the connection to mac is back; the answer goes on",
    ]
    assert one.said.count("worker finished inference") == 1
    starts = [event["action"] for event in one.of("narration") if event["actor"] in {"llama-backend", "tokenizer"}]
    assert [starts.count(action) for action in ("start", "tokenized", "cache", "complete")] == [1, 1, 1, 1]
    assert one.end["ttft_ms"] == round((stretch.first_token_at_s - stretch.asked_at_s) * 1000, 3)
    assert one.end["decode_time_ms"] < (rest.last_event_at_s - stretch.first_token_at_s) * 1000
    assert one.end["tokens_per_s"] > 0
    assert one.end["tokens_out"] == whole.end["tokens_out"] == 24
    assert one.end["receipt"]["interruptions"] == 1


def _broken_after(one: Told) -> int:
    (line,) = [event for event in one.of("narration") if event["action"] == "interrupted"]
    tokens = one.events[: one.events.index(line)]
    return sum(len(event["ids"]) for event in tokens if event["type"] == "token")


async def test_cut_before_the_first_token_it_is_asked_again_from_the_start(bench: Bench) -> None:
    whole = await bench.answer(STORY)
    for at in (0, 100, 300, 700):
        one = await bench.answer(STORY, Cut(at))

        same(one, whole)
        assert any("before the first token; asking again" in line for line in one.said)
        assert one.of("token")[0]["i"] == 0


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
async def test_a_worker_that_has_not_noticed_generates_for_nobody_no_longer(bench: Bench, how: Any) -> None:
    """Its only slot is free again at once, although it still writes into a connection that seems to be whole."""
    body = {**STORY, "ignore_eos": True, "max_tokens": 200}
    whole = await bench.answer(body)

    one = await bench.answer(body, Cut(1500, how, unnoticed=True), Cut(2500, how, unnoticed=True))

    same(one, whole)
    assert bench.proxy.count("/cancel") >= 2


async def test_a_sampled_answer_goes_on_with_what_its_readers_have(bench: Bench) -> None:
    body = {**STORY, "temperature": 1.5, "seed": 7, "ignore_eos": True}
    one = await bench.answer(body, Cut(1500), Cut(1500))

    assert [i for i, _, _ in one.answer] == list(range(len(one.answer)))
    ids = [token for _, _, ids in one.answer for token in ids]
    assert one.end["tokens_out"] == 24
    assert len(ids) in {23, 24}, "one that shows no text may be missing"


async def test_log_probabilities_are_not_parted_from_their_tokens(bench: Bench) -> None:
    body = {**STORY, "n_probs": 2, "max_tokens": 8}
    whole = await bench.answer(body)
    last = await length_bytes(bench, body)
    for at in range(900, last, 61):
        one = await bench.answer(body, Cut(at, "reset"))

        same(one, whole)
        order = [(event["type"], event["i"]) for event in one.events if event["type"] in {"token", "logprobs"}]
        assert order == [(kind, i) for i in range(len(one.answer)) for kind in ("token", "logprobs")]
        for (_, _, ids), entry in zip(one.answer, one.of("logprobs"), strict=True):
            assert [token["id"] for token in entry["tokens"]] == list(ids)


async def test_a_form_is_kept_across_the_seam(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}}, "required": ["name"]}
    body = {"prompt": "who are you", "temperature": 0, "max_tokens": 60, "json_schema": schema}
    whole = await bench.answer(body)
    for at in range(800, await length_bytes(bench, body), 149):
        same(await bench.answer(body, Cut(at)), whole)


async def test_characters_of_several_tokens_are_cut_anywhere(spelling: RunningWorker) -> None:
    body = {"prompt": "x", "temperature": 0, "max_tokens": 40}
    async with benched(spelling) as bench:
        whole = await bench.answer(body)
        assert "".join(text for _, text, _ in whole.answer) == "añ€🐝z"
        for at in range(600, await length_bytes(bench, body), 13):
            same(await bench.answer(body, Cut(at)), whole)


async def test_a_worker_is_followed_to_where_it_is_reached_now(bench: Bench) -> None:
    whole = await bench.answer(STORY)
    task = bench.task()
    bench.proxy.cuts, bench.proxy.down_after_cut = [Cut(1500, "reset")], True
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, task, STORY)
        await bench.proxy.was_cut.wait()
        await anyio.sleep(0.3)
        assert task.is_interrupted
        assert not task.is_finished
        bench.refused.append(NodeUnreachableError("the connection to mac is being restored"))
        bench.moved_to = bench.worker.url

    same(told(task), whole)
    assert bench.inquiries > 0


async def test_an_outage_longer_than_the_lease_is_the_end(bench: Bench) -> None:
    task = bench.task()
    bench.proxy.cuts, bench.proxy.down_after_cut = [Cut(1500)], True

    with pytest.raises(StreamTruncatedError):
        await bench.run(task, STORY)

    assert task.tokens_seen > 0
    assert not task.is_interrupted


async def test_each_cut_has_its_own_time_to_be_overcome(bench: Bench) -> None:
    """A long prompt takes longer than the lease: streams that ended before its first token were no outage."""
    whole = await bench.answer(STORY)
    began_s = anyio.current_time()

    one = await bench.answer(STORY, *[Cut(300, "stall", unnoticed=True)] * 5)

    same(one, whole)
    assert anyio.current_time() - began_s > CLOCKS.hive_lease_s + CLOCKS.hive_drain_s
    assert one.task.receipt["interruptions"] == 1


async def test_a_worker_that_never_answers_is_the_end(bench: Bench) -> None:
    bench.proxy.is_down = True
    with pytest.raises((StreamTruncatedError, NodeUnreachableError)):
        await bench.answer(STORY)
    bench.moved_to = "http://127.0.0.1:1"
    with pytest.raises(NodeUnreachableError):
        await bench.answer(STORY)


async def test_streams_that_bring_nothing_are_not_asked_for_without_end(bench: Bench) -> None:
    task = bench.task()
    bench.proxy.cuts = [Cut(1500), *[Cut(500)] * 100]

    with pytest.raises(StreamTruncatedError):
        await bench.run(task, STORY)

    assert bench.proxy.count("/execute") == 6
    assert sum("broke off" in line for line in told(task).said) == 1, "said once, not with every try"


async def test_a_worker_that_dies_meanwhile_has_crashed(mortal: RunningWorker) -> None:
    async with benched(mortal) as bench:
        task = bench.task()
        bench.proxy.cuts, bench.proxy.down_after_cut = [Cut(1500, unnoticed=True)], True

        async def kill() -> None:
            await bench.proxy.was_cut.wait()
            await anyio.sleep(0.2)
            mortal.child.kill()

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            with pytest.raises(WorkerCrashedError, match=r"SIGKILL.* after [0-9]+ tokens") as raised:
                await bench.run(task, STORY)
    assert raised.value.details["tokens_sent"] == task.tokens_seen > 0


async def test_a_cancel_ends_the_wait(bench: Bench) -> None:
    task = bench.task()
    bench.proxy.cuts, bench.proxy.down_after_cut = [Cut(1500)], True

    async def run() -> None:
        with task.scope:
            await bench.run(task, STORY)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await bench.proxy.was_cut.wait()
        await anyio.sleep(0.3)
        with anyio.fail_after(2):
            task.scope.cancel()
            while task.is_interrupted:  # noqa: ASYNC110 - the end of the wait is what is tested
                await anyio.sleep(0.01)
    assert not task.is_finished


async def test_a_stream_that_breaks_under_a_cancel_is_not_taken_up_again(bench: Bench) -> None:
    task = bench.task()
    task.cancel_requested = True
    bench.proxy.cuts = [Cut(1500)]

    with pytest.raises(CancelledTaskError):
        await bench.run(task, STORY)

    assert bench.proxy.count("/execute") == 1


async def test_a_cancel_that_nobody_asked_for_is_a_cut(bench: Bench) -> None:
    """It was meant for the request before, and came late."""
    body = {**STORY, "ignore_eos": True, "max_tokens": 400}
    whole = await bench.answer(body)
    task = bench.task()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, task, body)
        with anyio.fail_after(10):
            while task.tokens_seen < 20:  # noqa: ASYNC110 - tokens are counted, not told
                await anyio.sleep(0.002)
            await bench.worker.client.post("/cancel", json={"job_id": task.id})

    same(told(task), whole)
    assert task.receipt["interruptions"] == 1


async def test_a_request_that_was_thought_lost_and_arrives_late_is_ended(bench: Bench) -> None:
    """It has the answer's slot and its name when the answer is asked for."""
    whole = await bench.answer(STORY)
    task = bench.task()
    late = {**STORY, "job_id": task.id, "ignore_eos": True, "max_tokens": 2000}
    async with bench.worker.client.stream("POST", "/execute", json=late) as response:
        assert response.status_code == 200
        same(await bench.run(task, STORY), whole)


async def test_a_task_whose_tokens_are_none_cannot_go_on(bench: Bench) -> None:
    task = bench.task()
    bench.proxy.cuts = [Cut(1500)]
    task.log.append(b'event: token\ndata: {"type":"token","t":"x","i":4,"ids":[1]}\n\n')

    with pytest.raises(BadPeerError, match="token frame 4 where 0"):
        await bench.run(task, STORY)


async def test_text_that_was_held_back_is_cut_anywhere(bench: Bench) -> None:
    """A stop string that the answer begins and does not say, in its middle and at its end."""
    whole = await bench.answer(STORY)
    text = "".join(text for _, text, _ in whole.answer)
    body = {**STORY, "stop": [text[-9:] + "?", text[20:29] + "?"]}
    whole = await bench.answer(body)
    assert "".join(text for _, text, _ in whole.answer) == text
    for at in range(1000, await length_bytes(bench, body), 41):
        same(await bench.answer(body, Cut(at)), whole)


async def test_an_answer_that_fills_its_context_is_cut_at_its_end(spelling: RunningWorker) -> None:
    async with benched(spelling) as bench:
        body = {"prompt": "x", "temperature": 0, "max_tokens": 4000, "ignore_eos": True}
        whole = await bench.answer(body)
        assert whole.end["stop_reason"] == "CONTEXT_FULL"
        last = await length_bytes(bench, body)
        for at in range(last - 600, last, 37):
            same(await bench.answer(body, Cut(at)), whole)
