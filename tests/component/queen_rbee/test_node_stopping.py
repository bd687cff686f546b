"""Stopping, removing and uninstalling a node whose hive does not go: nobody is told that it has."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import Script, ScriptedNode, scripted_node

LEASE = "will stop itself by its lease in at most 8 s"


@pytest.fixture
def clocks() -> dict[str, str]:
    return {"RBEE_CLOCK_HIVE_DRAIN_S": "0.3", "RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "7.9", "RBEE_CLOCK_LOST_S": "60"}


@pytest.fixture
async def mac(queen: LiveQueen, script: Script) -> AsyncGenerator[ScriptedNode]:
    """Its hive takes the order to stop, and answers still when its drain is over."""
    async with scripted_node(queen.url, queen.token, script, "mac") as node:
        await queen.answer(node="mac")
        yield node


async def ask(queen: LiveQueen, method: str, path: str, body: Any = None) -> httpx2.Response:
    return await queen.client.request(method, f"{queen.url}/v2/nodes{path}", json=body, timeout=60)


async def names(queen: LiveQueen) -> list[str]:
    return [node["name"] for node in (await ask(queen, "GET", "")).json()["nodes"]]


async def test_a_hive_that_does_not_stop_is_a_failure_that_names_its_lease(queen: LiveQueen, mac: ScriptedNode) -> None:
    stopped = await ask(queen, "POST", "/mac/stop")

    error = stopped.json()["error"]
    assert (stopped.status_code, error["code"]) == (502, "NODE_UNREACHABLE")
    assert LEASE in error["message"]
    assert "rbee-hive stop" in error["hint"]
    assert (await ask(queen, "GET", "/mac")).json()["last_error"]["code"] == "NODE_UNREACHABLE"


async def test_a_hive_that_is_gone_is_stopped(queen: LiveQueen, script: Script) -> None:
    async with scripted_node(queen.url, queen.token, script, "mac"):
        await queen.answer(node="mac")
    stopped = await ask(queen, "POST", "/mac/stop")

    assert (stopped.status_code, stopped.json()["facts"]) == (200, {"stopped": True})


async def test_nothing_is_uninstalled_under_a_hive_that_may_run(queen: LiveQueen, mac: ScriptedNode) -> None:
    refused = await ask(queen, "POST", "/mac/uninstall")

    assert refused.json()["error"]["code"] == "NODE_UNREACHABLE"
    assert LEASE in refused.json()["error"]["message"]
    assert "mac" in await names(queen)


async def test_a_node_that_cannot_be_stopped_is_removed_with_a_warning(queen: LiveQueen, mac: ScriptedNode) -> None:
    await ask(queen, "POST", "/mac/drain")
    removed = await queen.client.request(
        "DELETE", f"{queen.url}/v2/nodes/mac", headers={"Accept": "text/event-stream"}, timeout=60
    )

    assert LEASE in removed.text
    assert '"level":"warning"' in removed.text.replace('": "', '":"')
    assert '"stopped":false' in removed.text.replace('": ', '":')
    assert "mac" not in await names(queen)


async def test_a_node_that_comes_back_is_not_drained_because_one_of_its_name_was(
    queen: LiveQueen, script: Script, mac: ScriptedNode
) -> None:
    await ask(queen, "POST", "/mac/drain")
    await ask(queen, "DELETE", "/mac")
    script.beating = True
    async with scripted_node(queen.url, queen.token, script, "mac"):
        answer = await queen.answer(node="mac")

    assert answer["type"] == "end", answer


async def test_an_update_of_this_machine_is_not_needed(queen: LiveQueen) -> None:
    for order in ({"check": True}, {}):
        outcome = (await ask(queen, "POST", "/localhost/update", order)).json()
        assert outcome["facts"]["needed"] is False
        assert outcome["node"]["name"] == "localhost"


async def test_an_operator_may_start_a_drained_node(queen: LiveQueen, node: ScriptedNode) -> None:
    await queen.answer()
    await ask(queen, "POST", "/localhost/drain")

    started = await ask(queen, "POST", "/localhost/start")

    assert started.status_code == 200, started.text
    assert started.json()["node"]["drained"] is True
    assert (await queen.answer(node="localhost"))["code"] == "NO_CAPACITY"
