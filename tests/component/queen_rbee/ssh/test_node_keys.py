"""The host key of a node that goes: forgotten where it was kept, unless another node is at the same place."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from tests.support.queen_parts import queen_parts
from tests.support.sshd import Sshd

from queen_rbee.domain.nodes.node import Node
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_keys import NodeKeys
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.resolved import host_and_port
from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncGenerator[NodeCatalog]:
    async with anyio.create_task_group() as group, queen_parts(tmp_path, group) as parts:
        yield parts.contacts.catalog


@pytest.fixture
def keys(catalog: NodeCatalog, dialler: Dialler, server: Sshd) -> NodeKeys:
    """Nothing is known of the server; `~/.ssh/config` calls it mac."""
    (server.ssh / "known_hosts").unlink()
    dialler.config.write_text(f"Host mac\n HostName 127.0.0.1\n Port {server.port}\n")
    return NodeKeys(NodeDirectory(catalog, dialler.config), dialler)


def trusted(keys: NodeKeys) -> str:
    ours = keys.dialler.host_keys.ours
    return ours.read_text() if ours.exists() else ""


async def test_a_key_is_forgotten_where_ssh_has_found_it(keys: NodeKeys, catalog: NodeCatalog, server: Sshd) -> None:
    mac = Node("mac", "ssh")
    await catalog.put(mac)
    await keys.confirm(mac, server.fingerprint)
    assert trusted(keys).startswith(f"[127.0.0.1]:{server.port} ")

    assert await keys.forget(mac)

    assert trusted(keys) == ""


async def test_a_key_that_another_node_shows_stays(keys: NodeKeys, catalog: NodeCatalog, server: Sshd) -> None:
    mac, same = Node("mac", "ssh"), Node("same", "ssh", host="127.0.0.1", port=server.port, user="rita")
    for node in (mac, same, Node("pc", "ssh", host="127.0.0.1", port=1)):
        await catalog.put(node)
    await keys.confirm(mac, server.fingerprint)

    assert not await keys.forget(mac)
    assert trusted(keys)

    await catalog.remove("mac")
    assert await keys.forget(same)
    assert trusted(keys) == ""


async def test_this_machine_has_no_key_to_forget(keys: NodeKeys) -> None:
    assert not await keys.forget(Node("localhost", "local"))


async def test_a_damaged_configuration_keeps_the_key(keys: NodeKeys, catalog: NodeCatalog, server: Sshd) -> None:
    mac = Node("mac", "ssh")
    await keys.confirm(mac, server.fingerprint)
    keys.dialler.config.write_text("Host mac\n Port many\n")

    assert not await keys.forget(mac)
    assert trusted(keys)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (Target("mac", "mac"), ("10.0.0.3", 2222)),
        (Target("mac", "mac", 22), ("10.0.0.3", 22)),
        (Target("other", "mac"), ("10.0.0.3", 2222)),
        (Target("alias", "alias"), ("its-key", 22)),
        (Target("new", "10.1.1.1", key="/no/such/key"), ("10.1.1.1", 22)),
    ],
)
def test_where_ssh_goes(tmp_path: Path, target: Target, place: tuple[str, int]) -> None:
    config = tmp_path / "config"
    assert host_and_port(target, config) == (target.host, target.port or 22)
    config.write_text("Host mac\n HostName 10.0.0.3\n Port 2222\nHost alias\n HostKeyAlias its-key\n")

    assert host_and_port(target, config) == place


def test_a_configuration_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host mac\n Port many\n")
    with pytest.raises(InvalidRequestError, match="ssh/config cannot be used for mac"):
        host_and_port(Target("mac", "mac"), tmp_path / "config")
