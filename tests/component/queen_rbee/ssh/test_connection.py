"""What goes through one connection: commands, bytes, ports in both directions; and what happens when it breaks."""

import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest
from tests.support.sshd import Sshd, free_port

from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.ssh.connection import connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.errors import RequestTimeoutError, SshForwardingForbiddenError, SshUnreachableError


async def test_stdin_stdout_stderr_and_status_arrive_whole(dialler: Dialler, target: Target) -> None:
    payload = bytes(range(256)) * 8192
    heard = bytearray()
    async with connected(dialler, target) as connection:
        finished = await connection.run("cat; echo oops >&2; exit 7", payload, timeout_s=30, hear=heard.extend)
    assert (finished.status, finished.stderr) == (7, b"oops\n")
    assert bytes(heard) == payload
    assert finished.stdout == payload[: len(finished.stdout)]


async def test_a_command_that_reads_nothing_does_not_hold_up_who_writes(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target) as connection:
        finished = await connection.run("exit 3", b"x" * 10_000_000, timeout_s=30)
    assert finished.status == 3


async def test_a_command_that_never_ends_is_given_up(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target) as connection:
        with pytest.raises(RequestTimeoutError):
            await connection.run("sleep 1000", timeout_s=0.5)
        assert (await connection.run("echo on", timeout_s=10)).stdout == b"on\n"


async def test_a_command_killed_by_a_signal_has_no_status(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target) as connection:
        assert (await connection.run(command_line(["/bin/sh", "-c", "kill -9 $$"]), timeout_s=10)).status == -1


async def test_a_connection_that_breaks_under_a_command_is_said(dialler: Dialler, target: Target, server: Sshd) -> None:
    async with connected(dialler, target) as connection, anyio.create_task_group() as group:

        async def cut_soon() -> None:
            await anyio.sleep(0.5)
            await anyio.to_thread.run_sync(server.cut)

        group.start_soon(cut_soon)
        with anyio.fail_after(10), pytest.raises(SshUnreachableError, match="broke off"):
            await connection.run("sleep 60", timeout_s=50)
        await connection.wait_closed()
        with pytest.raises(SshUnreachableError):
            await connection.run("true", timeout_s=5)


async def _echo_through(port: int, text: bytes) -> bytes:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(text)
        await stream.send_eof()
        answer = b""
        async for chunk in stream:
            answer += chunk
        return answer


async def _echo(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send(chunk)


async def test_a_port_of_that_machine_is_reached_here_by_many_at_once(dialler: Dialler, target: Target) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, connected(dialler, target) as connection, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echo)
        port = await connection.forward(listener.extra(anyio.abc.SocketAttribute.local_port))
        answers: list[bytes] = []

        async def one(number: int) -> None:
            answers.append(await _echo_through(port, b"%d " % number * 1000))

        async with anyio.create_task_group() as callers:
            for number in range(256):
                callers.start_soon(one, number)
        assert sorted(answers) == sorted(b"%d " % number * 1000 for number in range(256))
        group.cancel_scope.cancel()


async def test_that_machine_reaches_a_socket_of_ours_and_nobody_elses(
    dialler: Dialler, target: Target, tmp_path: Path
) -> None:
    listener = await anyio.create_unix_listener(tmp_path / "queen.sock")
    async with listener, connected(dialler, target) as connection, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echo)
        port = await connection.forward_back(tmp_path / "queen.sock")
        assert await _echo_through(port, b"knock") == b"knock"
        with pytest.raises(OSError, match=r".+"):
            socket.create_connection(("127.0.0.2", port), timeout=1).close()
        group.cancel_scope.cancel()


async def test_after_a_break_the_same_local_port_leads_there_again(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path
) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echo)
        there = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with connected(dialler, target) as connection:
            port = await connection.forward(there)
            await anyio.to_thread.run_sync(server.cut)
            await connection.wait_closed()
        await anyio.to_thread.run_sync(server.start)
        async with connected(dialler, target) as connection:
            assert await connection.forward(there, port) == port
            assert await _echo_through(port, b"again") == b"again"
        group.cancel_scope.cancel()


async def _refusing(server: Sshd, *options: str) -> None:
    await anyio.to_thread.run_sync(server.stop)
    await anyio.to_thread.run_sync(lambda: server.start(*options))


@pytest.mark.parametrize("option", ["AllowTcpForwarding no", "AllowTcpForwarding local", "DisableForwarding yes"])
async def test_forbidden_forwarding_back_is_said(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path, option: str
) -> None:
    await _refusing(server, option)
    async with connected(dialler, target) as connection:
        with pytest.raises(SshForwardingForbiddenError) as refused:
            await connection.forward_back(tmp_path / "queen.sock")
    assert "node add mac --transport http" in refused.value.hint


@pytest.mark.parametrize("option", ["AllowTcpForwarding no", "AllowTcpForwarding remote", "PermitOpen none"])
async def test_forbidden_forwarding_there_is_said(dialler: Dialler, target: Target, server: Sshd, option: str) -> None:
    await _refusing(server, option)
    async with connected(dialler, target) as connection:
        with pytest.raises(SshForwardingForbiddenError) as refused:
            await connection.require_forwarding(server.port)
    assert "node add mac --transport http" in refused.value.hint


async def test_a_port_where_nobody_listens_is_not_a_forbidden_one(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target) as connection:
        await connection.require_forwarding(1)


@contextmanager
def _standing_still(server: Sshd) -> Generator[None]:
    """Its connections are there and do nothing."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    for child in children:
        child.suspend()
    try:
        yield
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.resume()


async def test_a_machine_that_falls_silent_is_noticed(dialler: Dialler, target: Target, server: Sshd) -> None:
    async with connected(replace(dialler, keepalive_s=0.3), target) as connection:
        with _standing_still(server), anyio.fail_after(20):
            await connection.wait_closed()
    assert not connection.is_open


async def _nobody_listens(port: int) -> None:
    with pytest.raises(OSError, match=r".+"):
        await anyio.connect_tcp("127.0.0.1", port)


async def test_a_connection_that_broke_off_forwards_nothing_and_says_so(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path
) -> None:
    local_port = free_port()
    async with connected(dialler, target) as connection:
        await anyio.to_thread.run_sync(server.cut)
        await connection.wait_closed()
        with pytest.raises(SshUnreachableError, match="broke off"):
            await connection.forward(server.port, local_port)
        await _nobody_listens(local_port)
        with pytest.raises(SshUnreachableError):
            await connection.require_forwarding(server.port)
        with pytest.raises(SshUnreachableError):
            await connection.forward_back(tmp_path / "queen.sock")


async def test_a_connection_that_ends_while_a_port_is_forwarded_leaves_nobody_listening(
    dialler: Dialler, target: Target, server: Sshd
) -> None:
    local_port = free_port()
    async with connected(dialler, target) as connection:
        connection._connection.abort()  # it has ended after the next step of the event loop
        assert connection.is_open
        with pytest.raises(SshUnreachableError, match="broke off"):
            await connection.forward(server.port, local_port)
        await _nobody_listens(local_port)


@pytest.mark.parametrize("again", [False, True])
async def test_a_connection_that_ends_while_a_port_is_forwarded_back_forbids_nothing(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path, again: bool
) -> None:
    port = free_port() if again else 0
    async with connected(dialler, target) as connection:
        with _standing_still(server):
            async with anyio.create_task_group() as group:

                async def cut_soon() -> None:
                    await anyio.sleep(0.3)
                    await anyio.to_thread.run_sync(server.cut)

                group.start_soon(cut_soon)
                with anyio.fail_after(10), pytest.raises(SshUnreachableError, match="broke off"):
                    await connection.forward_back(tmp_path / "queen.sock", port)
