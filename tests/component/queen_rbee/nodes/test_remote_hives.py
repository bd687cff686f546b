"""A real queen, a real sshd and a real hive behind it: what a broken connection, a stop and a silence lead to."""

import json
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.cluster import Cluster
from tests.support.near_node import NearNode, near_node
from tests.support.queen import LiveQueen, live_queen
from tests.support.sshd import WHY_NOT

_TOKEN = "the-token-of-this-cluster-0123456789abcdef"
_QUEENS_CLOCKS = {
    "RBEE_CLOCK_HIVE_LEASE_S": "8", "RBEE_CLOCK_HIVE_DRAIN_S": "4", "RBEE_CLOCK_HEARTBEAT_S": "0.5",
    "RBEE_CLOCK_SUSPECT_S": "1.5", "RBEE_CLOCK_LOST_S": "2", "RBEE_CLOCK_SSH_KEEPALIVE_S": "1",
}  # fmt: skip
_HIVES_CLOCKS = {"hive_lease_s": 8.0, "adopted_hive_lease_s": 8.0, "hive_drain_s": 4.0, "heartbeat_s": 0.5}


@pytest.fixture
def clocks() -> dict[str, str]:
    return _QUEENS_CLOCKS


@pytest.fixture
def near(tmp_path: Path, cluster: Cluster) -> Generator[NearNode]:
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    cluster.home.mkdir(mode=0o700)
    (cluster.home / "token").write_text(_TOKEN)
    (cluster.home / "token").chmod(0o600)
    with near_node(tmp_path / "node", cluster, **_HIVES_CLOCKS) as near:
        yield near


@pytest.fixture
async def queen(cluster: Cluster, near: NearNode) -> AsyncGenerator[LiveQueen]:
    async with live_queen(cluster) as queen:
        await _ask(queen, "POST", "/v2/nodes", near.order)
        yield queen


async def _ask(queen: LiveQueen, method: str, path: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
    answer = await queen.client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def _order(queen: LiveQueen, action: str, *, status: int = 200) -> dict[str, Any]:
    return await _ask(queen, "POST", f"/v2/nodes/near/{action}", {}, status=status)


async def _view(queen: LiveQueen) -> dict[str, Any]:
    return dict((await queen.client.get("/v2/nodes/near")).json())


async def _until(holds: Callable[[dict[str, Any]], bool], queen: LiveQueen) -> dict[str, Any]:
    with anyio.fail_after(30):
        while not holds(view := await _view(queen)):  # noqa: ASYNC110 - only she knows
            await anyio.sleep(0.05)
    return view


def _said(cluster: Cluster) -> str:
    return (cluster.home / "logs" / "queen-rbee.log").read_text()


async def _told(cluster: Cluster, text: str, times: int = 1) -> None:
    with anyio.fail_after(30):
        while _said(cluster).count(text) < times:  # noqa: ASYNC110 - only she knows
            await anyio.sleep(0.05)


async def test_a_hive_is_started_over_ssh_used_and_stopped(queen: LiveQueen, near: NearNode, cluster: Cluster) -> None:
    end = await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    assert end["type"] == "end"
    near.only("rbee-hive")
    near.only("llm-worker-rbee")
    await _order(queen, "stop")
    near.all_gone(10)
    assert "the hive at near has stopped" in _said(cluster)
    assert "hive_lost" not in _said(cluster)
    assert "the hive at near is gone" not in _said(cluster), "what was ordered is no loss"
    assert (await _view(queen))["last_error"] is None


async def test_after_a_break_it_is_the_same_hive_and_stops_as_quickly(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await _order(queen, "start")
    hive = near.only("rbee-hive")
    for number in (1, 2):
        near.server.cut()
        near.server.start()
        await _told(cluster, "connected to near again", number)
    assert near.only("rbee-hive") == hive
    end = await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    assert end["type"] == "end"
    await _order(queen, "stop")
    near.all_gone(10)
    assert "by force" not in _said(cluster)
    lines = [line for line in _said(cluster).splitlines() if "waking a cpu worker" in line]
    assert len(lines) <= 1, "no line is told twice"


async def test_a_hive_that_ended_during_the_break_is_started_anew(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await _order(queen, "start")
    hive = near.only("rbee-hive")
    near.server.cut()
    hive.kill()
    near.server.start()
    await _told(cluster, "the hive at near is gone")
    view = await _until(lambda view: view["last_error"] is not None, queen)
    assert view["state"] == "offline"
    await _order(queen, "start")
    assert near.only("rbee-hive") != hive


async def test_who_has_its_port_by_then_is_told_no_secret(queen: LiveQueen, near: NearNode, cluster: Cluster) -> None:
    await _order(queen, "start")
    hive = near.only("rbee-hive")
    port = next(each.laddr.port for each in hive.net_connections() if each.status == "LISTEN")
    near.server.cut()
    hive.kill()
    await anyio.to_thread.run_sync(hive.wait)
    heard: list[bytes] = []

    async def imposter(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heard.append(await stream.receive())
            body = json.dumps({"program": "rbee-hive", "version": cluster_version(), "instance": "another"})
            await stream.send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, imposter)
        near.server.start()
        await _told(cluster, "connected to near again")
        await _until(lambda view: view["state"] == "offline", queen)
        group.cancel_scope.cancel()
    assert heard
    assert not [request for request in heard if _TOKEN.encode() in request or b"/v1/adopt" in request]


def cluster_version() -> str:
    from rbee_shared.version import __version__  # noqa: PLC0415 - one test needs it

    return __version__


async def test_a_stop_that_finds_nobody_fails_and_is_made_good_when_the_way_is_back(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await _order(queen, "start")
    near.only("rbee-hive")
    near.server.cut()
    error = (await _order(queen, "stop", status=502))["error"]
    assert error["code"] == "NODE_UNREACHABLE"
    assert "will stop itself by its lease in at most 12 s" in error["message"]
    near.server.start()
    await anyio.to_thread.run_sync(near.all_gone, 30)
    assert (await _view(queen))["state"] == "offline"


async def test_over_plain_http_a_broken_ssh_connection_costs_nothing(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await _ask(queen, "POST", "/v2/nodes", {"name": "near", "transport": "http"})
    end = await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    assert end["type"] == "end"
    worker = near.only("llm-worker-rbee")
    near.server.cut()
    await _told(cluster, "the SSH connection to near broke off")
    near.server.start()
    await _told(cluster, "connected to near again")
    end = await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    assert end["type"] == "end"
    assert near.only("llm-worker-rbee") == worker
    near.server.cut()
    with anyio.move_on_after(14):  # past all that she tries to connect anew for
        await _told(cluster, "this is never said")
    assert (await _view(queen))["state"] == "online"
    assert near.only("llm-worker-rbee") == worker
    near.server.start()


async def test_it_was_seen_a_moment_ago_and_one_that_hangs_is_in_trouble(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await _order(queen, "start")
    await anyio.sleep(2)
    first = (await _view(queen))["last_seen_ms"]
    await anyio.sleep(1.5)
    assert (await _view(queen))["last_seen_ms"] - first > 500
    hive = near.only("rbee-hive")
    hive.suspend()
    silent = await _until(lambda view: view["last_error"] is not None, queen)
    assert silent["state"] == "offline"
    assert silent["last_error"]["code"] == "NODE_UNREACHABLE"
    hive.resume()
    again = await _until(lambda view: view["state"] == "online", queen)
    assert again["last_error"] is None or (await _until(lambda view: view["last_error"] is None, queen))
    await _order(queen, "stop")
    near.all_gone(10)


async def test_a_hive_that_hangs_past_its_lease_is_ended_from_outside(
    queen: LiveQueen, near: NearNode, cluster: Cluster
) -> None:
    await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    near.only("rbee-hive").suspend()
    await anyio.to_thread.run_sync(near.all_gone, 60)
    view = await _view(queen)
    assert (view["state"], view["last_error"]["code"]) == ("offline", "NODE_UNREACHABLE")
    assert (await queen.answer(node="near", model="builtin:storyteller", max_tokens=3))["type"] == "end"


async def test_a_hive_that_hangs_is_ended_by_force(queen: LiveQueen, near: NearNode, cluster: Cluster) -> None:
    await queen.answer(node="near", model="builtin:storyteller", max_tokens=3)
    near.only("rbee-hive").suspend()
    await _order(queen, "stop")
    near.all_gone(10)


async def test_drained_survives_a_restart_of_the_queen(cluster: Cluster, near: NearNode) -> None:
    async with live_queen(cluster) as queen:
        await _ask(queen, "POST", "/v2/nodes", near.order)
        await _order(queen, "drain")
    (cluster.home / "logs" / "queen-rbee.log").unlink()
    async with live_queen(cluster) as queen:
        refused = await queen.answer(node="near")
        assert refused["code"] == "NO_CAPACITY"
        await _order(queen, "start")
        refused = await queen.answer(node="near")
        assert refused["code"] == "NO_CAPACITY"
        await _order(queen, "resume")
        assert (await queen.answer(node="near", model="builtin:storyteller", max_tokens=3))["type"] == "end"
