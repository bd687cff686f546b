"""A node behind another machine: the way is as `~/.ssh/config` says, is checked as any other, and leaves nothing."""

import os
import signal
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from tests.support.sshd import Sshd, free_port, sshd

from queen_rbee.ssh.connection import connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError, SshAuthFailedError, SshHostKeyUnknownError, SshUnreachableError

NODE = Target("mac", "mac")


@dataclass
class Way:
    """`mac` is reached through `bastion`; each lets in a key of its own."""

    server: Sshd
    bastion: Sshd

    def configure(self, jump: str = "bastion", *before: str) -> None:
        """`before`: lines that have the first word."""
        lines = [*before, *_host("bastion", self.bastion), *_host("mac", self.server), f"  ProxyJump {jump}"]
        (self.server.ssh / "config").write_text("\n".join(lines) + "\n")

    def know(self, *machines: Sshd) -> None:
        for machine in machines:
            machine.know()
        lines = [(machine.ssh / "known_hosts").read_text() for machine in machines]
        (self.server.ssh / "known_hosts").write_text("".join(lines))

    def connections(self) -> list[psutil.Process]:
        """The bastion's side of every connection to it."""
        assert self.bastion.process is not None
        return psutil.Process(self.bastion.process.pid).children(recursive=True)


def _host(name: str, machine: Sshd, *more: str) -> list[str]:
    lines = ["HostName 127.0.0.1", f"Port {machine.port}", "User root", f"IdentityFile {machine.key}", *more]
    return [f"Host {name}", *(f"  {line}" for line in lines)]


@pytest.fixture
def way(server: Sshd, tmp_path: Path) -> Generator[Way]:
    with sshd(tmp_path / "bastion") as bastion:
        bastion.start()
        way = Way(server, bastion)
        way.know(bastion, server)
        way.configure()
        yield way


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not await anyio.to_thread.run_sync(holds):  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def _nothing_is_left(way: Way) -> None:
    await _until(lambda: not way.connections())


async def test_the_way_is_as_the_configuration_says_and_ends_with_the_connection(dialler: Dialler, way: Way) -> None:
    async with connected(dialler, NODE) as connection:
        assert (await connection.run("echo hello", timeout_s=10)).stdout == b"hello\n"
        assert await anyio.to_thread.run_sync(way.connections)
        assert await connection.forward(way.server.port)
    await _nothing_is_left(way)


@pytest.mark.parametrize("jump", ["bastion,bastion", "root@bastion,ssh://bastion"])
async def test_a_way_over_several_machines(dialler: Dialler, way: Way, jump: str) -> None:
    way.configure(jump)
    async with connected(dialler, NODE) as connection:
        assert (await connection.run("echo hello", timeout_s=10)).stdout == b"hello\n"
    await _nothing_is_left(way)


async def test_a_machine_on_the_way_that_is_itself_behind_one(dialler: Dialler, way: Way) -> None:
    way.configure("inner", *_host("inner", way.bastion, "ProxyJump bastion"))
    async with connected(dialler, NODE) as connection:
        assert (await connection.run("echo hello", timeout_s=10)).stdout == b"hello\n"
    await _nothing_is_left(way)


async def test_the_key_of_the_node_is_shown_and_confirmed_through_it(dialler: Dialler, way: Way) -> None:
    way.know(way.bastion)
    with pytest.raises(SshHostKeyUnknownError) as refused:
        await dialler.dial(NODE)
    assert refused.value.details["fingerprint"] == way.server.fingerprint

    shown = await dialler.presented_key(NODE, way.server.fingerprint)
    await anyio.to_thread.run_sync(dialler.host_keys.accept, shown.host, shown.port, shown.key)
    async with connected(dialler, NODE):
        pass
    await _nothing_is_left(way)


async def test_a_machine_on_the_way_that_nobody_has_confirmed_is_not_gone_through(dialler: Dialler, way: Way) -> None:
    way.know(way.server)
    with pytest.raises(SshUnreachableError, match="the way to mac leads through bastion") as refused:
        await dialler.dial(NODE)
    assert way.bastion.fingerprint in refused.value.message
    assert "ssh bastion true" in refused.value.hint
    assert "publickey" not in (way.bastion.directory / "log").read_text()


async def test_a_machine_on_the_way_with_another_key_than_the_known_one_is_not_gone_through(
    dialler: Dialler, way: Way
) -> None:
    before = way.bastion.fingerprint
    await anyio.to_thread.run_sync(way.bastion.stop)
    way.bastion.new_host_key()
    await anyio.to_thread.run_sync(way.bastion.start)
    with pytest.raises(SshUnreachableError, match="and not the one that was confirmed") as refused:
        await dialler.dial(NODE)
    assert before in refused.value.message


async def test_a_machine_on_the_way_that_lets_nobody_in(dialler: Dialler, way: Way) -> None:
    way.bastion.authorise(way.server.key.with_suffix(".pub"))
    with pytest.raises(SshAuthFailedError, match="the way to mac leads through bastion"):
        await dialler.dial(NODE)


async def test_a_machine_on_the_way_that_lets_nothing_through(dialler: Dialler, way: Way) -> None:
    await anyio.to_thread.run_sync(way.bastion.stop)
    await anyio.to_thread.run_sync(way.bastion.start, "AllowTcpForwarding no")
    with pytest.raises(SshUnreachableError, match="opens no connection to it"):
        await dialler.dial(NODE)
    await _nothing_is_left(way)


async def test_a_node_that_does_not_answer_leaves_no_connection_on_the_way(dialler: Dialler, way: Way) -> None:
    way.configure("bastion", "Host mac", f"  Port {free_port()}")
    with pytest.raises(SshUnreachableError):
        await dialler.dial(NODE)
    await _nothing_is_left(way)


async def test_a_node_that_says_nothing_leaves_no_connection_on_the_way(dialler: Dialler, way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        way.configure("bastion", "Host mac", f"  Port {mute.getsockname()[1]}")
        with anyio.fail_after(20), pytest.raises(SshUnreachableError, match="nobody answers"):
            await replace(dialler, login_s=1.5).dial(NODE)
        await _nothing_is_left(way)


async def test_who_stops_waiting_leaves_no_connection_on_the_way(dialler: Dialler, way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        way.configure("bastion", "Host mac", f"  Port {mute.getsockname()[1]}")
        async with anyio.create_task_group() as group:
            group.start_soon(dialler.dial, NODE)
            await _until(lambda: any(way.connections()))
            group.cancel_scope.cancel()
        await _nothing_is_left(way)


async def test_a_machine_on_the_way_that_falls_silent_is_noticed(dialler: Dialler, way: Way) -> None:
    async with connected(replace(dialler, keepalive_s=0.3), NODE) as connection:
        stopped = await anyio.to_thread.run_sync(way.connections)
        for process in stopped:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(20):
                await connection.wait_closed()
        finally:
            for process in stopped:
                os.kill(process.pid, signal.SIGCONT)
    assert not connection.is_open
    await _nothing_is_left(way)


@pytest.mark.parametrize(
    ("jump", "said"),
    [("bastion:many", "names no machine"), ("mac", "circle"), ("bastion,,bastion", "names no machine")],
)
async def test_a_way_that_leads_nowhere_is_said(dialler: Dialler, way: Way, jump: str, said: str) -> None:
    way.configure(jump)
    with pytest.raises(InvalidRequestError, match=said):
        await dialler.dial(NODE)


async def test_no_way_at_all_is_the_straight_one(dialler: Dialler, way: Way) -> None:
    way.configure("none")
    async with connected(dialler, NODE):
        assert not await anyio.to_thread.run_sync(way.connections)
