"""One connection to a node for all who use it: shared, made anew, given up."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.support.sshd import Sshd

from queen_rbee.callbacks import Callbacks
from queen_rbee.nodes.link import Links, NodeLink
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.clocks import Clocks
from rbee_shared.errors import NodeUnreachableError, SshUnreachableError
from rbee_shared.http_app import new_app
from rbee_shared.http_client import http_client
from rbee_shared.narration import Narration, Narrator

CLOCKS = Clocks(hive_lease_s=20, hive_drain_s=10)


@asynccontextmanager
async def _links(
    dialler: Dialler, directory: Path, clocks: Clocks = CLOCKS
) -> AsyncGenerator[tuple[Links, list[Narration]]]:
    said: list[Narration] = []
    async with Callbacks.open(directory, clocks) as callbacks, anyio.create_task_group() as group:
        callbacks.serve_with(new_app("queen", "0", source="queen", body_s=5))
        yield Links(dialler, callbacks, clocks, Narrator("queen", said.append), group), said
        group.cancel_scope.cancel()


async def _echoing(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send(chunk)


@pytest.fixture
async def echo() -> AsyncGenerator[int]:
    """The port of a program on the node that says back what it hears."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echoing)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def _says_back(url: str, text: bytes) -> bool:
    async with await anyio.connect_tcp("127.0.0.1", int(url.rsplit(":", 1)[1])) as stream:
        await stream.send(text)
        return await stream.receive() == text


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not holds():  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_all_who_use_it_share_it_and_the_last_one_closes_it(
    dialler: Dialler, target: Target, tmp_path: Path
) -> None:
    async with _links(dialler, tmp_path) as (links, _):
        async with links.use(target) as first:
            async with links.use(target) as second:
                assert first is second
            connection = await first.connection()
            assert connection.is_open
        await _until(lambda: not connection.is_open)
        async with links.use(target) as third:
            assert third is not first


async def test_many_at_once_make_one_connection(dialler: Dialler, target: Target, server: Sshd, tmp_path: Path) -> None:
    used: list[NodeLink] = []

    async def use(links: Links) -> None:
        async with links.use(target) as link:
            used.append(link)
            await anyio.sleep(0.3)

    async with _links(dialler, tmp_path) as (links, _), anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(use, links)
    assert len(set(map(id, used))) == 1
    assert (server.directory / "log").read_text().count("Accepted publickey") == 1


async def test_ten_breaks_and_every_address_stays_good(
    dialler: Dialler, target: Target, server: Sshd, echo: int, tmp_path: Path
) -> None:
    met: list[str] = []
    async with (
        http_client(connect_s=5, call_s=5) as client,
        _links(dialler, tmp_path) as (links, said),
        links.use(target) as link,
    ):
        url = await link.url(f"http://127.0.0.1:{echo}")
        await link.open_back()

        async def meet() -> None:
            met.append(link.back_url)

        with link.when_back(meet):
            for number in range(10):
                await anyio.to_thread.run_sync(server.cut)
                await _until(lambda: link.is_coming_back)
                await anyio.to_thread.run_sync(server.start)
                assert await link.url(f"http://127.0.0.1:{echo}") == url
                assert await _says_back(url, b"%d" % number)
                assert (await client.get(f"{link.back_url}/nothing")).status_code == 404
    assert len(met) == 10
    actions = [line.action for line in said]
    assert actions.count("link_lost") == actions.count("link_back") == 10


async def test_what_does_not_come_back_in_time_is_over(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path
) -> None:
    clocks = Clocks(hive_lease_s=0.5, hive_drain_s=0.5)
    async with _links(replace(dialler, connect_s=0.5), tmp_path, clocks) as (links, _), links.use(target) as link:
        await anyio.to_thread.run_sync(server.cut)
        with anyio.fail_after(20):
            await link.wait_over()
        with pytest.raises(NodeUnreachableError, match="did not come back"):
            await link.connection()
        with pytest.raises(NodeUnreachableError):
            await link.url("http://127.0.0.1:1")
        await anyio.to_thread.run_sync(server.start)
        async with links.use(target) as another:
            assert another is not link
            await another.connection()


async def test_a_first_connection_that_fails_leaves_nothing(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path
) -> None:
    await anyio.to_thread.run_sync(server.stop)
    async with _links(dialler, tmp_path) as (links, _):
        with pytest.raises(SshUnreachableError):
            async with links.use(target):
                raise AssertionError
        await anyio.to_thread.run_sync(server.start)
        async with links.use(target) as link:
            assert (await link.connection()).is_open
