"""The API of a hive that is reached through SSH, while its connection breaks and while the node is drained."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.cluster import Cluster
from tests.support.near_node import NearNode, near_node
from tests.support.queen import LiveQueen, live_queen
from tests.support.sshd import WHY_NOT

_POOL = "/v2/nodes/near/pool/v1"
_AWAY_S = 1.5


@pytest.fixture
def near(tmp_path: Path, cluster: Cluster) -> Generator[NearNode]:
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    cluster.home.mkdir(mode=0o700)
    token = cluster.home / "token"
    token.write_text("the-token-of-this-cluster-0123456789abcdef")
    token.chmod(0o600)
    with near_node(tmp_path / "node", cluster) as near:
        yield near


@pytest.fixture
async def queen(cluster: Cluster, near: NearNode) -> AsyncGenerator[LiveQueen]:
    async with live_queen(cluster) as queen:
        added = await queen.client.post("/v2/nodes", json=near.order)
        assert added.status_code == 200, added.text
        yield queen


async def test_questions_and_orders_wait_for_a_connection_that_comes_back(queen: LiveQueen, near: NearNode) -> None:
    assert (await queen.client.post("/v2/nodes/near/start", json={})).status_code == 200
    hive = near.only("rbee-hive")
    await anyio.to_thread.run_sync(near.server.cut)
    answers = {}

    async def ask(method: str, path: str) -> None:
        answers[path] = await queen.client.request(method, f"{_POOL}/{path}")

    async with anyio.create_task_group() as group:
        await anyio.sleep(0.5)
        group.start_soon(ask, "GET", "status")
        group.start_soon(ask, "POST", "workers/stop-all")
        await anyio.sleep(_AWAY_S)
        assert answers == {}
        await anyio.to_thread.run_sync(near.server.start)

    assert {path: answer.status_code for path, answer in answers.items()} == {"status": 200, "workers/stop-all": 200}
    assert near.only("rbee-hive") == hive


async def test_a_question_waits_for_a_hive_that_is_starting(queen: LiveQueen, near: NearNode) -> None:
    asked = []

    async def start() -> None:
        await queen.client.post("/v2/nodes/near/start", json={})

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        with anyio.fail_after(30):
            while (await queen.client.get("/v2/nodes/near")).json()["state"] != "starting":  # noqa: ASYNC110
                await anyio.sleep(0.02)
            asked.append(await queen.client.get(f"{_POOL}/status"))
    assert [answer.status_code for answer in asked] == [200]


async def test_an_operators_order_is_no_task_a_drained_node_takes_it(queen: LiveQueen, near: NearNode) -> None:
    assert (await queen.client.post("/v2/nodes/near/drain")).status_code == 200
    assert (await queen.client.get(f"{_POOL}/status")).json()["error"]["code"] == "NODE_UNREACHABLE"

    assert (await queen.client.post(f"{_POOL}/workers/stop-all")).status_code == 200

    near.only("rbee-hive")
    assert (await queen.client.get(f"{_POOL}/status")).status_code == 200
    assert (await queen.answer(node="near", model="builtin:storyteller"))["code"] == "NO_CAPACITY"
