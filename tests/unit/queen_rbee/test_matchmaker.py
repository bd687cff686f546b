"""Promises are never given twice, and the line is first in, first out."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from queen_rbee.domain.facts import DeviceFacts, Wish
from queen_rbee.domain.scheduler import SpawnWorker, UseWorker
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.task import Task
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import BackendUnavailableError, ModelInvalidError, RbeeError
from rbee_shared.narration import Narration

CPU = DeviceFacts("localhost", "cpu", "cpu", 0, "CPU", 10**10, 10**10)


def new_task(model: str = "builtin:m", device: int | None = None) -> Task:
    return Task(Wish(model, "localhost", device=device), correlation="c", sink=ignore, attached=False)


def ignore(_: Narration) -> None: ...


def record(id_: str, state: WorkerState, model: str = "builtin:m") -> WorkerRecord:
    return WorkerRecord(
        id=id_,
        url="http://127.0.0.1:1",
        model_ref=model,
        backend="cpu",
        device="cpu",
        state=state,
        pid=1,
        started_at=0,
        last_activity=0,
    )


@asynccontextmanager
async def racing(
    matchmaker: Matchmaker, tasks: list[Task]
) -> AsyncGenerator[tuple[dict[str, object], dict[str, anyio.Event]]]:
    """All tasks ask at once, in order; what each got, by id, and an event each that lets it leave."""
    results: dict[str, object] = {}
    left = {task.id: anyio.Event() for task in tasks}

    async def ask(task: Task) -> None:
        try:
            with matchmaker.in_line(task) as place:
                results[task.id] = await matchmaker.placement(place)
                await left[task.id].wait()
        except RbeeError as error:
            results[task.id] = error

    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(ask, task)
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        yield results, left
        group.cancel_scope.cancel()


async def test_one_load_is_shared_and_slots_go_in_order() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    first, second, third = tasks = [new_task() for _ in range(3)]

    async with racing(matchmaker, tasks) as (results, left):
        assert isinstance(results[first.id], SpawnWorker)
        assert len(results) == 1, "the others wait for that load"

        matchmaker.workers.put("localhost", record("w", WorkerState.IDLE), promised_to=first.id)
        matchmaker.load_done(first)
        await anyio.wait_all_tasks_blocked()
        assert len(results) == 1, "the slot was promised to the one who loaded"

        left[first.id].set()
        await anyio.wait_all_tasks_blocked()
        assert isinstance(results[second.id], UseWorker)
        assert third.id not in results

        left[second.id].set()
        await anyio.wait_all_tasks_blocked()
        assert isinstance(results[third.id], UseWorker)


async def test_a_failed_load_fails_all_who_waited_for_it() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    loader, waiter, other = tasks = [new_task(), new_task(), new_task("builtin:other")]

    async with racing(matchmaker, tasks) as (results, _):
        matchmaker.load_failed(loader, ModelInvalidError("not a GGUF"))
        await anyio.wait_all_tasks_blocked()

        assert isinstance(results[waiter.id], ModelInvalidError)
        assert isinstance(results[other.id], SpawnWorker)


async def test_no_such_device_is_refused_at_once() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    with (
        matchmaker.in_line(new_task(device=7)) as place,
        pytest.raises(BackendUnavailableError, match="localhost has no device 7; its devices are: cpu"),
    ):
        await matchmaker.placement(place)


async def test_waiting_tasks_are_told_their_place_in_line() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    matchmaker.workers.put("localhost", record("w", WorkerState.BUSY), promised_to="somebody")
    tasks = [new_task() for _ in range(3)]

    async with racing(matchmaker, tasks):
        for place, task in enumerate(tasks, start=1):
            assert f'"position":{place},'.encode() in task.log.everything()
        matchmaker.workers.release("somebody")
        await anyio.wait_all_tasks_blocked()
        assert b'"position":1,' in tasks[1].log.everything()


async def test_a_task_is_not_overtaken_while_it_is_being_prepared() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    matchmaker.workers.put("localhost", record("w", WorkerState.IDLE))
    slow, later, other = new_task(), new_task(), new_task("builtin:other")

    with matchmaker.in_line(slow) as slow_place:
        async with racing(matchmaker, [later, other]) as (results, _):
            assert later.id not in results
            assert isinstance(results[other.id], SpawnWorker), "another model's task passes"
            assert isinstance(await matchmaker.placement(slow_place), UseWorker)


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_waiter_leaves_no_promise(steps: int) -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            with matchmaker.in_line(new_task()) as place:
                await matchmaker.placement(place)

        group.start_soon(wait)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    matchmaker.workers.put("localhost", record("w", WorkerState.IDLE))
    with anyio.fail_after(1), matchmaker.in_line(new_task()) as place:
        assert isinstance(await matchmaker.placement(place), UseWorker)


async def test_a_worker_its_hive_no_longer_lists_is_gone() -> None:
    matchmaker = Matchmaker(lambda: (CPU,))
    matchmaker.workers.update("localhost", [record("w", WorkerState.IDLE), record("v", WorkerState.IDLE)])
    matchmaker.workers.promise("v", "running")

    matchmaker.workers.update("localhost", [])

    assert matchmaker.workers.get("w") is None
    failure = matchmaker.workers.failure_of("v")
    assert failure is not None
    assert failure.code == "WORKER_CRASHED"
