"""Any number of readers, each at its own pace; tokens are never dropped."""

import anyio
import pytest

from rbee_shared import sse
from rbee_shared.errors import EventsGoneError
from rbee_shared.event_log import EventLog


async def read_all(log: EventLog, after: int = 0) -> list[sse.Frame]:
    splitter, frames = sse.FrameSplitter(), []
    async for chunk in log.follow(after, ping_s=0.05):
        frames += splitter.feed(chunk)
    return frames


async def test_readers_get_every_frame_in_order_from_where_they_start() -> None:
    log = EventLog()
    results: dict[int, list[str | None]] = {}

    async def reader(after: int) -> None:
        results[after] = [frame.id for frame in await read_all(log, after)]

    async with anyio.create_task_group() as group:
        for number in range(5):
            log.append(sse.encode("token", {"i": number}))
        for after in (0, 3, 5):
            group.start_soon(reader, after)
        for number in range(5, 200):
            log.append(sse.encode("token", {"i": number}))
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        log.close()

    for after, ids in results.items():
        assert ids == [*(str(n) for n in range(after + 1, 201)), None], "the last is [DONE]"
    assert log.readers == 0


async def test_what_may_be_dropped_goes_first_and_tokens_stay() -> None:
    log = EventLog(limit_bytes=2000)
    for number in range(100):
        log.append(sse.encode("narration", {"human": "x" * 50}), droppable=True)
        log.append(sse.encode("token", {"i": number}))
    log.close()

    frames = await read_all(log)

    assert [frame.json()["i"] for frame in frames if frame.event == "token"] == list(range(100))
    assert sum(frame.event == "narration" for frame in frames) < 100


async def test_a_log_without_end_forgets_the_oldest_and_says_so() -> None:
    log = EventLog(limit_bytes=1000, drop_anything=True)
    for number in range(100):
        log.append(sse.encode("narration", {"n": number}))

    with pytest.raises(EventsGoneError, match="no longer kept"):
        log.require_kept(1)
    with pytest.raises(EventsGoneError, match="no event 101 yet"):
        log.require_kept(101)
    log.require_kept(log.last_id)


async def test_silence_is_filled_with_comments_and_a_closed_log_takes_nothing() -> None:
    log = EventLog()
    chunks = []
    with anyio.move_on_after(0.2):
        async for chunk in log.follow(ping_s=0.02):
            chunks.append(chunk)  # noqa: PERF401 - it never ends by itself
    assert set(chunks) == {sse.PING}

    log.close()
    assert log.append(b"event: token\ndata: {}\n\n") == 0
    assert [chunk async for chunk in log.follow()] == [sse.DONE]
