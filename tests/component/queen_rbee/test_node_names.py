"""A real queen's nodes by their names: her own machine from the start, `~/.ssh/config`, and one that is added twice."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from socket import gethostname
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import httpx2
import pytest
from fastapi import FastAPI
from tests.support.cluster import Cluster
from tests.support.queen import LiveQueen
from tests.support.scripted_node import Script, scripted_node

from rbee_shared.server import bind, serving, url_of
from rbee_shared.version import __version__


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    """Its user's `~/.ssh/config` names a machine."""
    ssh = tmp_path / "user" / ".ssh"
    ssh.mkdir(parents=True)
    (ssh / "config").write_text("Host pc\n  HostName 127.0.0.1\n  Port 9\n")
    cluster = Cluster(tmp_path / "home", HOME=str(tmp_path / "user"))
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
async def hive_port() -> AsyncGenerator[int]:
    """Of something that looks like a hive of this version."""
    app = FastAPI()
    app.add_api_route("/health", lambda: {"program": "rbee-hive", "version": __version__})
    listener = bind("127.0.0.1", 0)
    async with serving(app, listener, header_s=5, drain_s=0.1):
        port = urlsplit(url_of(listener)).port
        assert port is not None
        yield port


async def _nodes(queen: LiveQueen) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in (await queen.client.get("/v2/nodes")).json()["nodes"]}


async def _add(queen: LiveQueen, **order: Any) -> httpx2.Response:
    return await queen.client.post("/v2/nodes", json={"name": "mac", **order})


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", gethostname()])
async def test_her_own_machine_is_a_node_before_anybody_used_it(queen: LiveQueen, name: str) -> None:
    shown = (await queen.client.get(f"/v2/nodes/{name}")).json()
    assert (shown["name"], shown["transport"], shown["state"]) == ("localhost", "local", "offline")
    assert list(await _nodes(queen)) == ["localhost"]
    asked = await queen.client.get(f"/v2/nodes/{name}/pool/v1/status")
    assert asked.json()["error"]["code"] == "NODE_UNREACHABLE", "it sleeps: that is something else than unknown"


@pytest.mark.parametrize("line", ["pool status", "pool worker list", "node show localhost", "node list"])
async def test_a_keeper_that_looks_at_a_queen_who_did_nothing_yet_sees_this_machine_asleep(
    queen: LiveQueen, cluster: Cluster, line: str
) -> None:
    done = await anyio.to_thread.run_sync(cluster.keeper, *line.split())
    assert (done.process.returncode, done.stderr) == (0, "")
    assert "localhost" in done.stdout
    assert "asleep" in done.stdout


async def test_a_hive_that_announces_itself_is_a_node_with_what_it_has(queen: LiveQueen) -> None:
    async with scripted_node(queen.url, queen.token, Script(), "mac"):
        assert (await queen.answer(node="mac"))["type"] == "end"
        mac = (await _nodes(queen))["mac"]
    assert (mac["transport"], mac["state"], mac["devices"]["cpu"]["name"]) == ("http", "online", "scripted CPU")
    assert mac["last_seen_ms"] is not None


async def test_a_machine_that_only_ssh_knows_can_be_looked_at_and_is_taken_in_when_it_is_used(queen: LiveQueen) -> None:
    shown = await queen.client.get("/v2/nodes/pc")
    assert (shown.status_code, shown.json()["name"], shown.json()["transport"]) == (200, "pc", "ssh")
    assert (await queen.client.get("/v2/nodes/pc/pool/v1/status")).json()["error"]["code"] == "NODE_UNREACHABLE"
    assert list(await _nodes(queen)) == ["localhost"]

    assert (await queen.client.post("/v2/nodes/pc/test")).json()["error"]["code"] == "SSH_UNREACHABLE"
    assert list(await _nodes(queen)) == ["localhost", "pc"]


async def test_adding_a_node_again_changes_only_what_is_named(queen: LiveQueen, hive_port: int) -> None:
    named = {"host": "127.0.0.1", "port": 2222, "user": "rita", "key": "/k", "home": "~/bee", "install": False}
    first = await _add(queen, **named, hive_port=hive_port, transport="http")
    assert first.status_code == 200, first.text

    again = (await _add(queen, transport="http")).json()["node"]
    assert {name: again[name] for name in named} == named

    moved = (await _add(queen, user="max", install=True)).json()["node"]
    assert {name: moved[name] for name in named} == {**named, "user": "max", "install": True}

    reset = (await _add(queen, port=None, key="")).json()["node"]
    assert {name: reset[name] for name in named} == {**named, "user": "max", "install": True, "port": None, "key": None}


async def test_her_own_machine_is_not_added_under_another_name(queen: LiveQueen) -> None:
    refused = await queen.client.post("/v2/nodes", json={"name": gethostname()})
    assert refused.json()["error"]["code"] == "INVALID_REQUEST"
    assert list(await _nodes(queen)) == ["localhost"]
