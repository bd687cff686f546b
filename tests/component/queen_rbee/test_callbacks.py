"""The second listener: who may come in, where it listens, and that nothing of it is left."""

import stat
from pathlib import Path

import anyio
import httpx2
import pytest
from fastapi import FastAPI

from queen_rbee.callbacks import Callbacks
from rbee_shared.clocks import Clocks
from rbee_shared.errors import InvalidApiKeyError, PortInUseError


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"said": "hello"}

    return app


async def _said(transport: httpx2.AsyncHTTPTransport, url: str) -> object:
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.get(url)).json()


async def test_a_socket_that_only_its_owner_may_open_and_nothing_is_left_of(tmp_path: Path) -> None:
    async with Callbacks.open(tmp_path, Clocks()) as callbacks:
        callbacks.serve_with(_app())
        paths: list[Path] = []

        async def ask() -> None:
            paths.append(await callbacks.socket_path())

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
        path = paths[0]
        assert set(paths) == {path}
        assert stat.S_IMODE((await anyio.Path(path).stat()).st_mode) == 0o600
        transport = await anyio.to_thread.run_sync(lambda: httpx2.AsyncHTTPTransport(uds=str(path), verify=False))
        assert await _said(transport, "http://queen/") == {"said": "hello"}
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


async def test_where_the_path_would_be_too_long_it_lies_elsewhere(tmp_path: Path) -> None:
    deep = anyio.Path(tmp_path / ("d" * 100))
    await deep.mkdir()
    async with Callbacks.open(Path(deep), Clocks()) as callbacks:
        callbacks.serve_with(_app())
        path = anyio.Path(await callbacks.socket_path())
        assert len(str(path)) < 100
        assert stat.S_IMODE((await path.parent.stat()).st_mode) == 0o700
    assert not await path.parent.exists()


async def test_what_a_killed_queen_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left, foreign = anyio.Path(tmp_path / "queen-999999999.sock"), anyio.Path(tmp_path / "queen-1.sock")
    await left.touch()
    await foreign.touch()
    async with Callbacks.open(tmp_path, Clocks()) as callbacks:
        callbacks.serve_with(_app())
        await callbacks.socket_path()
        assert (await left.exists(), await foreign.exists()) == (False, True)


async def test_what_it_left_elsewhere_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary, deep = anyio.Path(tmp_path / "t"), anyio.Path(tmp_path / ("d" * 100))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    names = {"left": "queen-999999999.sock", "living": "queen-1.sock", "other": "queen-999999998.sock"}
    for directory, name in names.items():
        await (temporary / f"rbee-queen-{directory}").mkdir(parents=True)
        if directory != "other":
            await (temporary / f"rbee-queen-{directory}" / name).touch()
    await (temporary / "rbee-queen-empty").mkdir()
    await (temporary / "rbee-queen-link").symlink_to(temporary / "rbee-queen-other")
    await deep.mkdir()
    listener = await anyio.create_unix_listener(temporary / "rbee-queen-other" / names["other"])
    async with listener, Callbacks.open(Path(deep), Clocks()) as callbacks:
        callbacks.serve_with(_app())
        own = (await callbacks.socket_path()).parent.name
        stay = {"rbee-queen-living", "rbee-queen-other", "rbee-queen-empty", "rbee-queen-link", own}
        assert {path.name async for path in temporary.iterdir()} == stay
        assert await (temporary / "rbee-queen-other" / names["other"]).exists(), "somebody of another container answers"


async def test_a_port_of_one_address_the_same_for_everybody_who_comes_that_way(tmp_path: Path) -> None:
    async with Callbacks.open(tmp_path, Clocks()) as callbacks:
        callbacks.serve_with(_app())
        url = await callbacks.url_at("127.0.0.1")
        assert await callbacks.url_at("127.0.0.1") == url
        transport = await anyio.to_thread.run_sync(lambda: httpx2.AsyncHTTPTransport(verify=False))
        assert await _said(transport, url) == {"said": "hello"}
        with pytest.raises(PortInUseError):
            await callbacks.url_at("203.0.113.1")
    with pytest.raises(OSError, match=r".+"):
        await anyio.connect_tcp("127.0.0.1", int(url.rsplit(":", 1)[1]))


async def test_a_token_is_one_hives_until_the_next_one_of_that_node(tmp_path: Path) -> None:
    async with Callbacks.open(tmp_path, Clocks()) as callbacks:
        first, other = callbacks.new_token("mac"), callbacks.new_token("workstation")
        assert (callbacks.node_of(first), callbacks.node_of(other)) == ("mac", "workstation")
        second = callbacks.new_token("mac")
        assert callbacks.node_of(second) == "mac"
        for wrong in (first, "", "ä", second[:-1]):
            with pytest.raises(InvalidApiKeyError):
                callbacks.node_of(wrong)


async def test_the_token_of_a_hive_that_is_gone_opens_nothing(tmp_path: Path) -> None:
    async with Callbacks.open(tmp_path, Clocks()) as callbacks:
        token, other = callbacks.new_token("mac"), callbacks.new_token("workstation")
        callbacks.revoke("mac")
        callbacks.revoke("never seen")
        with pytest.raises(InvalidApiKeyError):
            callbacks.node_of(token)
        assert callbacks.node_of(other) == "workstation"
