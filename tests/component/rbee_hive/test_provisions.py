"""Pieces of work that are shared, followed, left and cancelled."""

from collections.abc import AsyncGenerator

import anyio
import pytest

from rbee_hive.provisions import Provision, Provisions
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.provisions import ProvisionEnd
from rbee_shared.errors import DiskFullError, NotFoundError
from rbee_shared.sse import FrameSplitter

GRACE_S = 0.1


class Bench:
    """Work that goes on until it is let go; counts how often it was begun and cancelled."""

    def __init__(self) -> None:
        self.let_go = anyio.Event()
        self.begun = self.cancelled = 0

    async def work(self, provision: Provision) -> ProvisionEnd:
        self.begun += 1
        provision.narrator.tell("download", "model size 1 MB")
        provision.progress(ProgressEvent(stage="download", done=1, total=2, unit="bytes"))
        try:
            await self.let_go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return ProvisionEnd(bytes_fetched=2)


@pytest.fixture
async def provisions() -> AsyncGenerator[Provisions]:
    async with Provisions.open(node="n", grace_s=GRACE_S) as opened:
        yield opened


async def events(provision: Provision) -> list[str]:
    splitter, found = FrameSplitter(), []
    with anyio.fail_after(10):
        async for chunk in provision.log.follow():
            found += [frame.event for frame in splitter.feed(chunk)]
    return found


async def ended(provision: Provision) -> None:
    with anyio.fail_after(10):
        await provision.ended.wait()


async def test_all_who_ask_meanwhile_share_it_and_each_sees_all_of_it(provisions: Provisions) -> None:
    bench = Bench()
    asked = [provisions.start(bench.work, "model", "a") for _ in range(100)]
    other = provisions.start(bench.work, "model", "b")
    await anyio.sleep(0.01)
    bench.let_go.set()

    assert len({provision.id for provision in asked}) == 1
    assert bench.begun == 2
    for provision in (asked[0], asked[-1], other):
        assert await events(provision) == ["narration", "progress", "end", "message"]
    assert asked[0].end is not None
    assert provisions.start(bench.work, "model", "a") is not asked[0], "it has ended: this is a new one"


async def test_it_ends_when_the_last_who_waited_has_left_and_not_before(provisions: Provisions) -> None:
    bench = Bench()
    provision = provisions.start(bench.work, "model", "a")
    first, second = provision.attend(), provision.attend()
    first()
    await anyio.sleep(GRACE_S * 3)
    assert not provision.is_ended
    second()
    third = provision.attend()  # within the grace
    await anyio.sleep(GRACE_S * 3)
    assert not provision.is_ended
    third()
    await ended(provision)

    assert provision.error is not None
    assert provision.error.code == "CANCELLED"
    assert bench.cancelled == 1
    assert (await events(provision))[-2:] == ["error", "message"]


async def test_work_that_nobody_reads_is_finished(provisions: Provisions) -> None:
    bench = Bench()
    provision = provisions.start(bench.work, "model", "a")
    await anyio.sleep(GRACE_S * 3)
    bench.let_go.set()
    await ended(provision)
    assert provision.error is None


async def test_a_failure_is_told_and_harms_nobody_else(provisions: Provisions) -> None:
    async def fails(_: Provision) -> ProvisionEnd:
        raise DiskFullError("no room")

    async def breaks(_: Provision) -> ProvisionEnd:
        raise RuntimeError("a defect")

    bench = Bench()
    going_on = provisions.start(bench.work, "model", "c")
    full, broken = provisions.start(fails, "model", "a"), provisions.start(breaks, "model", "b")
    await ended(full)
    await ended(broken)

    assert [provision.error.code for provision in (full, broken) if provision.error] == ["DISK_FULL", "INTERNAL"]
    assert not going_on.is_ended
    provisions.cancel_all()
    await ended(going_on)
    assert provisions.under_way() == ()


async def test_old_ones_are_forgotten_and_unknown_ones_said(provisions: Provisions) -> None:
    bench = Bench()
    bench.let_go.set()
    first = provisions.start(bench.work, "model", "0")
    await ended(first)
    for number in range(1, 70):
        await ended(provisions.start(bench.work, "model", str(number)))
    with pytest.raises(NotFoundError):
        provisions.get(first.id)


async def test_leaving_cancels_what_is_under_way() -> None:
    bench = Bench()
    async with Provisions.open(node="n", grace_s=GRACE_S) as opened:
        provision = opened.start(bench.work, "model", "a")
        await anyio.sleep(0.01)
    assert (bench.cancelled, provision.is_ended) == (1, True)


async def test_what_is_at_hand_has_ended_at_once(provisions: Provisions) -> None:
    provision = provisions.done(ProvisionEnd(), "model", "a")
    assert provision.is_ended
    assert await events(provisions.get(provision.id)) == ["end", "message"]
