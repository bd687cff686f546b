"""A real SSH server, and the queen's side of a connection to it."""

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.sshd import WHY_NOT, Sshd, sshd

from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.host_keys import HostKeys
from queen_rbee.ssh.target import Target


@pytest.fixture
def server(tmp_path: Path) -> Generator[Sshd]:
    """Started, and its host key known to the client."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with sshd(tmp_path / "sshd") as server:
        server.know()
        server.start()
        yield server


@pytest.fixture
def dialler(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dialler:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    host_keys = HostKeys(ours=tmp_path / "known_hosts", theirs=server.ssh / "known_hosts")
    return Dialler(host_keys, server.ssh / "config", connect_s=5, login_s=5, keepalive_s=1, tries=1)


@pytest.fixture
def target(server: Sshd) -> Target:
    return Target("mac", "127.0.0.1", server.port, "root", str(server.key))
