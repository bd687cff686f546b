"""What is done about a node for somebody who waits: told, ended once, ended by hanging up or by a shutdown."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from queen_rbee.errands import Errand, Errands
from rbee_shared import sse
from rbee_shared.contracts.nodes import NodeOutcome, NodeState, NodeView
from rbee_shared.errors import NodeUnreachableError, ShuttingDownError
from rbee_shared.narration import Narration, Narrator, correlation_id

OUTCOME = NodeOutcome(node=NodeView(name="mac", transport="ssh", state=NodeState.ONLINE), facts={"a": 1})


@asynccontextmanager
async def _errands(silence_s: float = 60) -> AsyncGenerator[tuple[Errands, list[Narration]]]:
    heard: list[Narration] = []
    async with anyio.create_task_group() as group:
        yield Errands(heard.append, silence_s, group), heard
        group.cancel_scope.cancel()


def _told(errand: Errand) -> list[tuple[str, str]]:
    frames = sse.FrameSplitter().feed(errand.log.everything())
    return [(frame.event, frame.json().get("human") or frame.json().get("code", "")) for frame in frames]


async def test_it_tells_and_ends() -> None:
    async def work(errand: Errand) -> NodeOutcome:
        errand.narrator.tell("step", "one step")
        return OUTCOME

    async with _errands() as (errands, heard):
        errand = errands.begin(work)
        await errand.finished.wait()
    assert (errand.outcome, errand.error) == (OUTCOME, None)
    assert _told(errand) == [("narration", "one step"), ("end", "")]
    assert [line.human for line in heard] == ["one step"]
    assert not errands.any_running()


@pytest.mark.parametrize(
    ("error", "code"),
    [(NodeUnreachableError("gone"), "NODE_UNREACHABLE"), (ZeroDivisionError("oops"), "INTERNAL")],
)
async def test_it_fails_and_the_queen_lives_on(error: Exception, code: str) -> None:
    async def work(_: Errand) -> NodeOutcome:
        raise error

    async with _errands() as (errands, _):
        errand = errands.begin(work)
        await errand.finished.wait()
    assert _told(errand) == [("error", code)]


async def test_who_hangs_up_ends_it() -> None:
    async def work(_: Errand) -> NodeOutcome:
        await anyio.sleep_forever()
        raise AssertionError

    async with _errands() as (errands, _):
        errand = errands.begin(work)
        await anyio.sleep(0.05)
        errand.hung_up()
        with anyio.fail_after(5):
            await errand.finished.wait()
        assert not errands.any_running()
    assert _told(errand) == [("error", "CANCELLED")]


async def test_a_shutdown_ends_what_runs_and_takes_nothing_new() -> None:
    async def work(_: Errand) -> NodeOutcome:
        try:
            await anyio.sleep_forever()
        finally:
            errand.fail(NodeUnreachableError("too late to count"))
        raise AssertionError

    async with _errands() as (errands, _):
        errand = errands.begin(work)
        await anyio.sleep(0.05)
        errands.close()
        await errand.finished.wait()
        with pytest.raises(ShuttingDownError):
            errands.begin(work)
    assert _told(errand) == [("error", "SHUTTING_DOWN")]


async def test_long_silence_is_broken_with_what_is_waited_for() -> None:
    async def work(errand: Errand) -> NodeOutcome:
        errand.now("thinking about mac")
        await anyio.sleep(0.5)
        return OUTCOME

    async with _errands(silence_s=0.1) as (errands, _):
        errand = errands.begin(work)
        await errand.finished.wait()
    assert any(event == "narration" and said.startswith("still thinking about mac") for event, said in _told(errand))


async def test_lines_of_others_reach_the_errand_that_they_belong_to() -> None:
    release = anyio.Event()

    async def work(_: Errand) -> NodeOutcome:
        await release.wait()
        return OUTCOME

    async with _errands() as (errands, _):
        correlation_id.set("req-1")
        errand = errands.begin(work)
        lines: list[Narration] = []
        Narrator("hive", lines.append).tell("x", "mine", correlation="req-1")
        Narrator("hive", lines.append).tell("x", "another's", correlation="req-2")
        assert [errands.route(line) for line in lines] == [True, False]
        release.set()
        await errand.finished.wait()
        assert not errands.route(lines[0])
    assert _told(errand) == [("narration", "mine"), ("end", "")]
