"""The client for who holds the token, against a scripted queen."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import anyio
import pytest
from tests.support.keeper_lab import KeeperLab

from rbee_shared.clocks import Clocks
from rbee_shared.errors import MissingApiKeyError, NodeNotFoundError, NodeUnreachableError, QueenLostError
from rbee_shared.steering_api import SteeringApi

IMPATIENT = Clocks(connect_s=1, control_call_s=0.5, sse_ping_s=0.3)


@pytest.fixture
def lab(tmp_path: Path) -> Generator[KeeperLab]:
    made = KeeperLab(tmp_path)
    yield made
    made.close()


def api_of(lab: KeeperLab, *flags: str) -> SteeringApi:
    url = lab.start_queen("--cluster", *flags)
    return SteeringApi(url, (lab.home / "token").read_text().strip(), clocks=IMPATIENT)


SPAWN = {"model": "x", "backend": "cpu", "request_id": "r"}


async def test_an_action_is_followed_to_its_end(lab: KeeperLab) -> None:
    api = api_of(lab)

    async with api.act_on_node("mac", "install", {"install": True}) as events:
        seen = [(event.type, event.data) async for event in events]

    assert [kind for kind, _ in seen] == ["narration", "progress", "end"]
    assert seen[-1][1]["node"]["name"] == "mac"


async def test_leaving_an_action_hangs_up(lab: KeeperLab) -> None:
    api = api_of(lab, "--action-s", "30")

    async with api.remove_node("mac") as events:
        await anext(aiter(events.batches()))

    await anyio.to_thread.run_sync(lab.until, lambda: lab.notes("action_hung_up"))


async def test_an_order_may_take_longer_than_a_call(lab: KeeperLab) -> None:
    api = api_of(lab, "--load-s", "2")

    answer = await api.ask_hive("mac", "POST", "/v1/workers/spawn", body=SPAWN, params={"wait": "ready"})

    assert answer["state"] == "idle"


async def test_an_order_ends_with_a_queen_that_stands_still(lab: KeeperLab) -> None:
    api = api_of(lab, "--load-s", "30")
    pid = int(lab.notes("listening")[-1]["pid"])

    async def stop_her() -> None:
        await anyio.to_thread.run_sync(lab.until, lambda: lab.notes("pool"))
        os.kill(pid, signal.SIGSTOP)

    async with anyio.create_task_group() as group:
        group.start_soon(stop_her)
        with anyio.fail_after(20), pytest.raises(QueenLostError, match="does not answer any more"):
            await api.ask_hive("mac", "POST", "/v1/workers/spawn", body=SPAWN, params={"wait": "ready"})


async def test_an_order_ends_with_a_queen_that_is_killed(lab: KeeperLab) -> None:
    api = api_of(lab, "--load-s", "30")
    pid = int(lab.notes("listening")[-1]["pid"])

    async def kill_her() -> None:
        await anyio.to_thread.run_sync(lab.until, lambda: lab.notes("pool"))
        os.kill(pid, signal.SIGKILL)

    async with anyio.create_task_group() as group:
        group.start_soon(kill_her)
        with anyio.fail_after(20), pytest.raises(QueenLostError):
            await api.ask_hive("mac", "POST", "/v1/workers/spawn", body=SPAWN, params={"wait": "ready"})


async def test_asking_wakes_nobody_and_ordering_does(lab: KeeperLab) -> None:
    api = api_of(lab)

    with pytest.raises(NodeUnreachableError, match="asleep"):
        await api.ask_hive("pc", "GET", "/v1/status")
    async with api.narration() as events:
        await api.ask_hive("pc", "POST", "/v1/selftest")
        heard = await anext(aiter(events.batches()))

    assert "waking the hive at pc" in heard[0].data["human"]
    assert (await api.ask_hive("pc", "GET", "/v1/status"))["name"] == "pc"


@pytest.mark.parametrize("name", ["no such", "..", "ü", "x?y#z"])
async def test_a_name_stays_in_its_place(lab: KeeperLab, name: str) -> None:
    api = api_of(lab)

    with pytest.raises((NodeNotFoundError, Exception)) as caught:
        await api.node(name)

    assert getattr(caught.value, "code", "") in {"NODE_NOT_FOUND", "NOT_FOUND"}
    assert not lab.notes("pool")


async def test_without_the_token_nothing_is_told(lab: KeeperLab) -> None:
    api = SteeringApi(lab.start_queen("--cluster"))

    with pytest.raises(MissingApiKeyError):
        await api.node("mac")
    with pytest.raises(MissingApiKeyError):
        async with api.add_node({"name": "mac"}):
            pass
