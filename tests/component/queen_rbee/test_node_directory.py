"""Who is meant by a name: this machine under all its names, the catalog, `~/.ssh/config`; what a mere look leaves."""

import socket
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from queen_rbee.domain.nodes.node import Node
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.own_names import OwnNames
from rbee_shared.contracts.nodes import NodeOrder
from rbee_shared.errors import NodeNotFoundError
from rbee_shared.sqlite import Quarantined

LOCAL = Node("localhost", "local")
ELSEWHERE = "192.0.2.7"  # of a range that no machine has
NAMES = {
    "blep.home.arpa": ["127.0.1.1"], "blep.elsewhere": [ELSEWHERE], "blep.both": [ELSEWHERE, "::1"],
    "pc": ["127.0.0.1"], ELSEWHERE: [ELSEWHERE], "127.0.0.1": ["127.0.0.1"],
}  # fmt: skip


def _never(damage: Quarantined) -> None:
    raise AssertionError(damage)


def _resolve(name: str) -> Iterable[str]:
    if name == "blep.silent":
        time.sleep(5)
    if name == "blep..broken":
        raise UnicodeError(name)
    if name not in NAMES:
        raise socket.gaierror(name)
    return NAMES[name]


@asynccontextmanager
async def _directory(tmp_path: Path, *nodes: Node, own: OwnNames | None = None) -> AsyncGenerator[NodeDirectory]:
    (tmp_path / "config").write_text("Host pc blep blep.elsewhere\n")
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        for node in nodes:
            await catalog.put(node)
        yield NodeDirectory(catalog, tmp_path / "config", own or OwnNames(lambda: "blep", _resolve, patience_s=0.2))


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "blep", "Blep", "blep.home.arpa", "blep.both", "127.0.0.1"])
async def test_this_machine_is_a_node_from_the_start_under_all_its_names(tmp_path: Path, name: str) -> None:
    async with _directory(tmp_path) as directory:
        assert await directory.look_up(name) == LOCAL
        assert await directory.nodes() == (LOCAL,)
        assert await directory.catalog.nodes() == (), "a look changes nothing"

        assert await directory.get(name) == LOCAL
        assert await directory.catalog.nodes() == (LOCAL,)


@pytest.mark.parametrize("name", ["blep.nowhere", "blep..broken", "blep.silent", "mac", ELSEWHERE, ""])
async def test_what_leads_elsewhere_or_nowhere_is_not_this_machine(tmp_path: Path, name: str) -> None:
    async with _directory(tmp_path) as directory:
        with anyio.fail_after(4), pytest.raises(NodeNotFoundError, match=r"the nodes are: localhost$"):
            await directory.get(name)
        assert await directory.catalog.nodes() == ()


@pytest.mark.parametrize("name", ["pc", "blep.elsewhere"])
async def test_a_machine_of_the_ssh_configuration_needs_no_adding(tmp_path: Path, name: str) -> None:
    async with _directory(tmp_path) as directory:
        assert await directory.look_up(name) == Node(name, "ssh")
        assert await directory.catalog.nodes() == ()

        await directory.get(name)
        assert [node.name for node in await directory.nodes()] == sorted([name, "localhost"])


async def test_the_catalog_knows_better_what_an_address_means(tmp_path: Path) -> None:
    box = Node("box", "ssh", host="127.0.0.1", port=2222)
    namesake = Node("blep.home.arpa", "ssh", host="10.0.0.9")
    decoy = Node("decoy", "ssh", host="localhost")
    async with _directory(tmp_path, box, namesake, decoy, Node("box2", "ssh", host="box")) as directory:
        assert await directory.look_up("127.0.0.1") == box
        assert await directory.look_up("BOX") == box
        assert await directory.look_up("blep.home.arpa") == namesake
        assert await directory.look_up("localhost") == LOCAL
        assert await directory.look_up("blep") == LOCAL


async def test_many_names_that_nobody_answers_for_do_not_keep_others_from_their_work(tmp_path: Path) -> None:
    async with _directory(tmp_path) as directory:

        async def ask() -> None:
            with pytest.raises(NodeNotFoundError):
                await directory.look_up("blep.silent")

        with anyio.fail_after(4):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(ask)
            assert await directory.look_up("pc") == Node("pc", "ssh")


async def test_the_real_name_service_knows_this_machine() -> None:
    own = OwnNames()
    ours = [
        found.address
        for interface in psutil.net_if_addrs().values()
        for found in interface
        if found.family is socket.AF_INET
    ]
    assert ours
    for address in ours:
        assert await own.lead_here(address), address
    assert own.include(socket.gethostname())
    assert not await own.lead_here(ELSEWHERE)
    assert not await own.lead_here(f"{socket.gethostname().partition('.')[0]}.invalid")


async def test_an_order_is_completed_with_what_is_known_of_that_very_name(tmp_path: Path) -> None:
    mac = Node("mac", "ssh", host="10.0.0.3", user="rita")
    async with _directory(tmp_path, mac) as directory:
        assert (await directory.completed(NodeOrder(name="mac", port=2222))).model_dump() == {
            "name": "mac", "host": "10.0.0.3", "user": "rita", "port": 2222, "key": None, "transport": "ssh",
            "hive_port": None, "home": None, "install": True, "fingerprint": None,
        }  # fmt: skip
        for name in ("10.0.0.3", "Mac", "pc", "unheard-of"):
            order = NodeOrder(name=name)
            assert await directory.completed(order) == order, "a node of its own"
        for name in ("blep", "blep.home.arpa"):
            assert (await directory.completed(NodeOrder(name=name, port=22))).name == "localhost"
