"""Wheelhouses: of this machine's own libraries, of fetched ones for another platform, and this very rbee out of one."""

import importlib.metadata
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.local_shell import LocalShell, account
from tests.support.tiny_rbee import library, tiny_rbee

from queen_rbee.domain.nodes.locks import Pin, as_lock
from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.domain.nodes.preflight import Install, Ready, assess
from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.here import own_rbee
from queen_rbee.nodes.installer import Version, install, uninstall
from queen_rbee.nodes.payload import payload
from queen_rbee.nodes.probe import probe
from queen_rbee.nodes.wheelhouse import (
    WORKER_NEEDS,
    current_wheelhouse,
    current_wheelhouses,
    make_wheelhouse,
    own_engine,
    root,
)
from queen_rbee.nodes.wheels import Wheel
from rbee_hive.domain.builds.engine_lock import NEEDS
from rbee_shared.errors import DiskFullError, InstallFailedError
from rbee_shared.paths import Home

PYTHON = Path(sys.executable).resolve()
ALPINE = PlatformTag("linux-aarch64", "cp312", "musl", (1, 2))


def locked(name: str, version: str, *wheels: Wheel) -> str:
    return as_lock([Pin(name, version, tuple(f"sha256:{wheel.sha256}" for wheel in wheels) or ("sha256:" + "a" * 64,))])


def installed_lock(*names: str) -> str:
    return "".join(locked(name, importlib.metadata.version(name)) for name in names)


def test_what_a_worker_needs_is_what_the_hive_says() -> None:
    assert WORKER_NEEDS == NEEDS


async def test_this_very_rbee_installs_from_a_wheelhouse_without_a_network(tmp_path: Path) -> None:
    queen, told = Home(tmp_path / "queen"), list[str]()
    own = await anyio.to_thread.run_sync(own_rbee)
    house = await make_wheelhouse(queen, own, own.tag, told.append)
    assert house == await anyio.to_thread.run_sync(current_wheelhouse, queen, own, own.tag.name)
    assert told[0].startswith("packing ")
    assert str(len(house.files)) in told[1]

    env = account(tmp_path / "home", PIP_INDEX_URL="http://127.0.0.1:9/", https_proxy="http://127.0.0.1:9")
    shell = LocalShell(env=env)
    mine = own.for_nodes(await anyio.to_thread.run_sync(current_wheelhouses, queen, own), None)
    found = await probe(shell, "~/.rbee")
    ours = account(tmp_path / "home", PATH=f"{PYTHON.parent}:/usr/bin:/bin")  # as compiled parts want it
    python = (await probe(LocalShell(env=ours), "~/.rbee")).pythons[0]
    verdict = assess(replace(found, pythons=(python,)), mine, "mac", may_install=True).verdict
    assert isinstance(verdict, Install)
    assert verdict.wheelhouse
    site = Site(shell, "mac", found.home, verdict.python.path)
    sent = await anyio.to_thread.run_sync(payload, own, verdict.tag, house, [])
    done = await install(site, sent, told.append, token="t")

    version = Version.of(found.home, done)
    said = await anyio.run_process([*version.argv("rbee-hive"), "--version"], env=env)
    assert said.stdout.decode().split() == ["rbee-hive", own.version]
    ask = "import sys, numpy, llguidance, rbee_hive.__main__; print(sys.prefix); print(numpy.__version__)"
    asked = await anyio.run_process([version.python, "-I", "-c", ask], env=env)
    assert asked.stdout.decode().splitlines() == [version.directory, importlib.metadata.version("numpy")]
    assert assess(await probe(shell, "~/.rbee"), mine, "mac", may_install=False).verdict == Ready(done)

    await uninstall(site, told.append, token="t", keep_models=False)
    assert list((tmp_path / "home").iterdir()) == []


async def test_a_library_of_another_version_than_the_locked_one_is_not_packed(tmp_path: Path) -> None:
    own = tiny_rbee(lock=locked("pyyaml", "0.1"))
    with pytest.raises(InstallFailedError, match=r"pyyaml 0\.1 is wanted"):
        await make_wheelhouse(Home(tmp_path), own, own.tag, lambda _: None)
    assert list(root(Home(tmp_path)).iterdir()) == []


async def test_one_for_other_locks_does_not_count_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna"))
    await make_wheelhouse(home, own, own.tag, lambda _: None)
    later = tiny_rbee(lock=installed_lock("idna", "h11"))

    def current() -> tuple[int, frozenset[str], frozenset[str]]:
        house = current_wheelhouse(home, later, own.tag.name)
        return len(house.files) if house else 0, current_wheelhouses(home, later), current_wheelhouses(home, own)

    assert await anyio.to_thread.run_sync(current) == (0, frozenset(), frozenset({own.tag.name}))
    await make_wheelhouse(home, later, own.tag, lambda _: None)
    assert await anyio.to_thread.run_sync(current) == (2, frozenset({own.tag.name}), frozenset())
    assert [path.name for path in root(home).iterdir()] == [own.tag.name]


def an_hour_and_a_half_old(path: Path) -> Path:
    then = time.time() - 5400
    os.utime(path, (then, then))
    return path


async def test_many_at_once_are_all_whole_and_one_of_them_stays(tmp_path: Path) -> None:
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna", "h11"))
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(make_wheelhouse, home, own, own.tag, lambda _: None)
    assert [path.name for path in root(home).iterdir()] == [own.tag.name]
    house = await anyio.to_thread.run_sync(current_wheelhouse, home, own, own.tag.name)
    assert house is not None
    assert len(house.files) == 2


async def test_what_killed_queens_left_is_removed_and_what_others_make_is_not(tmp_path: Path) -> None:
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna"))
    for name in ("linux-cp399.1f.partial", "linux-cp399.2f.partial", f"{own.tag.name}.3f.old"):
        (root(home) / name).mkdir(parents=True)
    (root(home) / own.tag.name).mkdir()
    an_hour_and_a_half_old(root(home) / "linux-cp399.1f.partial")
    await make_wheelhouse(home, own, own.tag, lambda _: None)
    assert {path.name for path in root(home).iterdir()} == {own.tag.name, "linux-cp399.2f.partial"}


async def test_one_whose_successor_never_came_is_there_again(tmp_path: Path) -> None:
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna"))
    (root(home) / "linux-cp399.1f.old").mkdir(parents=True)
    await make_wheelhouse(home, own, own.tag, lambda _: None)
    assert {path.name for path in root(home).iterdir()} == {own.tag.name, "linux-cp399"}


@pytest.mark.allow_blocking("looks for the directory in which one is being made")
async def test_one_that_cannot_get_its_place_leaves_it_to_the_one_before(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root to mount a disk in its place")
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna"))
    before = await make_wheelhouse(home, own, own.tag, lambda _: None)
    mounted: list[Path] = []

    def mount(_: str) -> None:
        mounted.extend(root(home).glob("*.partial"))
        subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted[0])], check=True)

    try:
        with pytest.raises(InstallFailedError, match="busy"):
            await make_wheelhouse(home, own, own.tag, mount)
    finally:
        await anyio.run_process(["umount", str(mounted[0])])
    assert await anyio.to_thread.run_sync(current_wheelhouse, home, own, own.tag.name) == before


async def test_where_none_can_be_made_people_are_told(tmp_path: Path) -> None:
    (tmp_path / "wheelhouse").touch()
    own = replace(tiny_rbee(), engine="cpu-1")
    with pytest.raises(InstallFailedError, match="wheelhouse"):
        await make_wheelhouse(Home(tmp_path), own, own.tag, print)
    with pytest.raises(InstallFailedError, match="wheelhouse"):
        await anyio.to_thread.run_sync(own_engine, Home(tmp_path), own)


async def test_half_made_ones_do_not_count(tmp_path: Path) -> None:
    home, own = Home(tmp_path), tiny_rbee(lock=installed_lock("idna"))
    (root(home) / own.tag.name).mkdir(parents=True)
    assert await anyio.to_thread.run_sync(current_wheelhouses, home, own) == frozenset()
    (root(home) / own.tag.name / "wheelhouse.lock").write_text("# for nothing\n")
    assert await anyio.to_thread.run_sync(current_wheelhouses, home, own) == frozenset()


async def test_another_platforms_libraries_are_fetched_by_their_locked_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    compiled = library("compiled", tag="cp312-cp312-musllinux_1_1_aarch64")
    ours = library("compiled", tag="py3-none-linux_x86_64")
    pure, extra = library("pure"), library("numpy")
    for wheel in (compiled, ours, pure, extra, library("only_windows")):
        (index / wheel.name).write_bytes(wheel.content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = locked("compiled", "1.0", compiled, ours) + locked("pure", "1.0", pure)
    lock += locked("only-windows", "1.0").replace("1.0 ", "1.0 ; sys_platform == 'win32' ")
    lock += locked("elsewhere", "1.0").replace("1.0 ", "1.0 ; platform_machine == 'x86_64' ")
    own = replace(tiny_rbee(lock=lock), engine_lock=locked("numpy", "1.0", extra) + locked("llama-cpp-python", "1.0"))
    told: list[str] = []
    house = await make_wheelhouse(Home(tmp_path / "queen"), own, ALPINE, told.append)
    assert house.path.name == "linux-aarch64-musl-cp312"
    assert [path.name for path in house.files] == sorted([compiled.name, pure.name, extra.name])
    assert compiled.sha256 in house.lock
    assert told[0] == "fetching 3 libraries for linux-aarch64-musl-cp312"


async def test_a_fetched_library_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    evil = library("pure", more=b"import evil")
    (index / evil.name).write_bytes(evil.content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InstallFailedError, match="not the one that was locked"):
        await make_wheelhouse(Home(tmp_path), tiny_rbee(lock=locked("pure", "1.0", library("pure"))), ALPINE, print)
    assert list(root(Home(tmp_path)).iterdir()) == []


async def test_a_platform_that_has_no_such_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InstallFailedError, match=r"there is no pure==1\.0 for it") as caught:
        await make_wheelhouse(Home(tmp_path), tiny_rbee(lock=locked("pure", "1.0", library("pure"))), ALPINE, print)
    assert "on this machine" in caught.value.hint


async def test_no_room_is_said(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root to mount a small disk")
    own = tiny_rbee(lock=installed_lock("cryptography"))
    await anyio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)])
    try:
        with pytest.raises(DiskFullError):
            await make_wheelhouse(Home(tmp_path), own, own.tag, print)
        assert list(root(Home(tmp_path)).iterdir()) == []
    finally:
        await anyio.run_process(["umount", str(tmp_path)])


async def test_the_own_engine_is_a_wheel_that_loads_elsewhere(tmp_path: Path) -> None:
    own = replace(tiny_rbee(), engine=(await anyio.to_thread.run_sync(own_rbee)).engine)
    directory = await anyio.to_thread.run_sync(own_engine, Home(tmp_path), own)
    assert directory is not None
    assert directory.name == own.engine
    (wheel,) = directory.iterdir()
    install_it = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        "--target",
        str(tmp_path / "site"),
    ]
    await anyio.run_process([*install_it, str(wheel)])
    ask = "import sys; sys.path.insert(0, sys.argv[1]); import llama_cpp; print(llama_cpp.__file__)"
    asked = await anyio.run_process([sys.executable, "-c", ask, str(tmp_path / "site")], stderr=subprocess.DEVNULL)
    assert asked.stdout.decode().startswith(str(tmp_path))


async def test_the_own_engine_is_packed_for_several_nodes_at_once(tmp_path: Path) -> None:
    own = replace(tiny_rbee(), engine="cpu-1")
    directory = root(Home(tmp_path)) / "engines" / "cpu-1"
    directory.mkdir(parents=True)
    left, fresh = directory / "a.whl.1f.partial", directory / "a.whl.2f.partial"
    left.touch()
    fresh.touch()
    an_hour_and_a_half_old(left)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(anyio.to_thread.run_sync, own_engine, Home(tmp_path), own)
    assert {path.suffix for path in directory.iterdir()} == {".whl", ".partial"}
    assert list(directory.glob("*.partial")) == [fresh]


async def test_a_queen_without_an_engine_has_none_to_send(tmp_path: Path) -> None:
    assert await anyio.to_thread.run_sync(own_engine, Home(tmp_path), tiny_rbee()) is None
    assert not root(Home(tmp_path)).exists()
