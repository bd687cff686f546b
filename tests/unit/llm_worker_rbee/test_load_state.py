"""The progress of a load as a reader gets it: as often as is useful, never backwards, and with an end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from llm_worker_rbee.domain.engine_events import EngineFailed, Loaded, LoadProgress, ModelFacts
from llm_worker_rbee.load_state import LoadState
from rbee_shared.contracts.workers import MemoryParts
from rbee_shared.errors import ModelInvalidError
from rbee_shared.sse import PING, Frame, FrameSplitter

TOTAL_BYTES = 5_000_000_000
PING_S = 60.0
MODEL = ModelFacts(
    name="m",
    size_bytes=TOTAL_BYTES,
    n_params=1,
    n_ctx=64,
    n_ctx_answer=64,
    n_ctx_train=64,
    slots=1,
    threads=1,
    memory=MemoryParts(weights_bytes=1, kv_bytes=1, compute_bytes=1),
    has_template=False,
)


async def _read(stream: AsyncGenerator[bytes], frames: list[Frame]) -> None:
    splitter = FrameSplitter()
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            frames += splitter.feed(chunk)


def _done(frames: list[Frame]) -> list[int]:
    progress: list[dict[str, Any]] = [frame.json() for frame in frames if frame.event == "progress"]
    assert {(one["stage"], one["unit"], one["total"]) for one in progress} == {("load", "bytes", TOTAL_BYTES)}
    return [one["done"] for one in progress]


async def test_a_thousand_steps_become_a_few_frames() -> None:
    load, frames = LoadState(TOTAL_BYTES), list[Frame]()
    async with anyio.create_task_group() as group:
        group.start_soon(_read, load.follow(PING_S), frames)
        began_s = anyio.current_time()
        for per_mille in range(1000):
            load.handle(LoadProgress(per_mille))
            await anyio.sleep(0.001)
        took_s = anyio.current_time() - began_s
        load.handle(Loaded(MODEL))

    done = _done(frames)
    assert 4 <= len(done) <= took_s / 0.1 + 2
    assert done == sorted(set(done))
    assert (done[0], done[-1]) == (0, TOTAL_BYTES)
    assert [frame.event for frame in frames][-2:] == ["end", "message"]


async def test_it_never_goes_back() -> None:
    load = LoadState(TOTAL_BYTES)
    load.handle(LoadProgress(700))
    load.handle(LoadProgress(20))

    assert load.per_mille == 700


async def test_the_end_is_told_at_once_however_shortly_after_a_step() -> None:
    load, frames = LoadState(TOTAL_BYTES), list[Frame]()
    async with anyio.create_task_group() as group:
        group.start_soon(_read, load.follow(PING_S), frames)
        await anyio.sleep(0.01)
        load.handle(LoadProgress(500))
        load.handle(Loaded(MODEL))
        load.handle(LoadProgress(600))

    assert _done(frames) == [0, TOTAL_BYTES]


async def test_a_load_that_fails_ends_with_its_error() -> None:
    load, frames = LoadState(TOTAL_BYTES), list[Frame]()
    async with anyio.create_task_group() as group:
        group.start_soon(_read, load.follow(PING_S), frames)
        await anyio.sleep(0.01)
        load.handle(EngineFailed(ModelInvalidError("it is damaged")))

    assert [frame.event for frame in frames] == ["progress", "error", "message"]
    assert frames[1].json()["code"] == "MODEL_INVALID"
    with pytest.raises(ModelInvalidError):
        await load.wait_loaded()


async def test_a_load_that_stands_still_is_kept_open_by_comments() -> None:
    async with aclosing(LoadState(TOTAL_BYTES).follow(0.01)) as chunks:
        assert [await anext(chunks) for _ in range(3)][1:] == [PING, PING]
