"""Installing through a real SSH server: when the upload is asked for, and what becomes of who waits."""

import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.sshd import Sshd
from tests.support.tiny_rbee import library, tiny_rbee, tiny_wheelhouse

from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.installer import install
from queen_rbee.nodes.payload import Payload, payload
from queen_rbee.ssh.connection import SshConnection, connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.errors import InstallFailedError, SshUnreachableError

_PYTHON = os.path.realpath(sys.executable)
_MORE_THAN_ANY_WINDOW = os.urandom(5_000_000)


@pytest.fixture
def sent(tmp_path: Path) -> Payload:
    own = tiny_rbee()
    house = tiny_wheelhouse(tmp_path / "house", library("smallish", more=b"# " + _MORE_THAN_ANY_WINDOW.hex().encode()))
    return payload(own, own.tag, house, [])


def site(connection: SshConnection, home: Path) -> Site:
    return Site(connection, "mac", str(home), _PYTHON)


async def test_it_is_installed_once_and_the_second_time_only_looked_at(
    dialler: Dialler, target: Target, sent: Payload, tmp_path: Path
) -> None:
    told: list[str] = []
    async with connected(dialler, target) as connection:
        done = await install(site(connection, tmp_path / "rbee"), sent, told.append, token=None)
        assert await install(site(connection, tmp_path / "rbee"), sent, told.append, token=None) == done
    assert told[-1] == "rbee 1.0 is there already"


async def test_a_file_that_is_gone_is_named(dialler: Dialler, target: Target, sent: Payload, tmp_path: Path) -> None:
    next(part.source for part in sent.parts if isinstance(part.source, Path)).unlink()
    async with connected(dialler, target) as connection:
        with pytest.raises(InstallFailedError, match="cannot be read: No such file"):
            await install(site(connection, tmp_path / "rbee"), sent, lambda _: None, token=None)


async def test_who_waits_there_ends_with_its_connection(
    dialler: Dialler, target: Target, server: Sshd, sent: Payload, tmp_path: Path
) -> None:
    home = tmp_path / "rbee"
    home.mkdir()
    python = tmp_path / "python of this test"
    python.symlink_to(_PYTHON)
    waiting = anyio.Event()

    def tell(text: str) -> None:
        if "waiting for it" in text:
            waiting.set()

    async def cut() -> None:
        await waiting.wait()
        assert await anyio.to_thread.run_sync(_runs, python)
        await anyio.to_thread.run_sync(server.cut)

    with (home / "install.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        async with connected(dialler, target) as connection, anyio.create_task_group() as group:
            group.start_soon(cut)
            with pytest.raises(SshUnreachableError):
                await install(replace(site(connection, home), python=str(python)), sent, tell, token=None)
        with anyio.fail_after(20):  # before it would take the silence for an end
            while await anyio.to_thread.run_sync(_runs, python):  # noqa: ASYNC110 - a process that ends sends no event
                await anyio.sleep(0.1)


def _runs(python: Path) -> bool:
    return subprocess.run(["pgrep", "-f", "--", str(python)], stdout=subprocess.DEVNULL, check=False).returncode == 0
