"""Taking rbee away again leaves the account as it was, and touches nothing that is not rbee's."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.support.local_shell import NOISE, LocalShell, account
from tests.support.struck import struck

from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.installer import Removed, uninstall
from rbee_shared.errors import HiveOwnedError, InstallFailedError, RbeeError

TOKEN = "x" * 10_000
_FILES = (
    "versions/1.0-a/bin/python", "versions/1.0-a/installed.json", "wheels/cpu-1/e.whl", "models/hf/o/m.gguf",
    "models.db", "models.db-wal", "models.db.corrupt-2026", "workers/cpu-1/site.py", "workers.db", "logs/a.log",
    "run/host/x.lock", "token", "install.lock",
)  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An account on which rbee was installed and has been used."""
    home = tmp_path / "it's a home"
    site = Site(LocalShell(env=account(home)), "mac", f"{home}/.rbee", sys.executable)
    rbee = Path(site.home)
    for name in _FILES:
        (rbee / name).parent.mkdir(parents=True, exist_ok=True)
        (rbee / name).write_bytes(b"x" * 10_000)
    (rbee / "current").symlink_to("versions/1.0-a")
    (rbee / "previous").symlink_to("versions/0.9-b")
    (rbee / ".current.77").symlink_to("versions/1.0-a")
    return site


async def removed(site: Site, *, keep_models: bool = False) -> Removed:
    with anyio.fail_after(60):
        return await uninstall(site, lambda _: None, token=TOKEN, keep_models=keep_models)


def home_of(site: Site) -> Path:
    return Path(site.home)


def names(site: Site) -> set[str]:
    return {path.name for path in home_of(site).iterdir()}


async def test_the_account_is_as_it_was_and_the_bytes_are_counted(site: Site) -> None:
    done = await removed(site)
    assert list(home_of(site).parent.iterdir()) == []
    assert done.left == ()
    assert 13 * 10_000 < done.freed_bytes < 1_000_000


async def test_models_stay_if_they_are_to(site: Site) -> None:
    done = await removed(site, keep_models=True)
    assert names(site) == set(done.left) == {"models", "models.db", "models.db-wal", "models.db.corrupt-2026"}
    assert (home_of(site) / "models/hf/o/m.gguf").read_bytes() == b"x" * 10_000


async def test_what_rbee_has_not_made_stays_and_is_named(site: Site) -> None:
    (home_of(site) / "config.toml").write_text("[hive]\n")
    (home_of(site) / "my notes").mkdir()
    done = await removed(site)
    assert names(site) == set(done.left) == {"config.toml", "my notes"}


async def test_where_a_queen_lives_too_only_the_installation_goes(site: Site) -> None:
    (home_of(site) / "queen.db").touch()
    done = await removed(site)
    assert {"queen.db", "token", "models", "models.db", "workers", "logs", "run"} <= set(done.left)
    assert not {"versions", "current", "previous", "wheels", "install.lock"} & names(site)


@pytest.mark.parametrize("name", ["models", "versions", "wheels", "logs", "workers.db", "current"])
async def test_a_link_is_removed_and_never_followed(name: str, site: Site, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    place = home_of(site) / name
    if place.exists() or place.is_symlink():
        await anyio.run_process(["rm", "-rf", str(place)])
    place.symlink_to(precious)
    (home_of(site) / "logs2").symlink_to(precious)
    if name != "models":
        (home_of(site) / "models" / "inside").symlink_to(precious)
    done = await removed(site)
    assert (precious / "file").read_text() == "mine"
    assert done.left == ("logs2",)


async def test_a_home_that_is_a_link_keeps_the_directory_behind_it(site: Site, tmp_path: Path) -> None:
    real = tmp_path / "data"
    home_of(site).rename(real)
    home_of(site).symlink_to(real)
    assert (await removed(site)).left == ()
    assert list(real.iterdir()) == []


async def test_again_is_harmless(site: Site) -> None:
    await removed(site)
    assert await removed(site) == Removed(freed_bytes=0, left=())


async def test_broken_off_it_can_be_done_again(site: Site) -> None:
    """Whatever is gone already: the sign by which the directory is known goes last."""
    await anyio.run_process(["rm", "-rf", f"{site.home}/versions", f"{site.home}/current", f"{site.home}/token"])
    await removed(site)
    assert not home_of(site).exists()


@contextmanager
def hive_of(site: Site) -> Generator[int]:
    python = home_of(site) / "versions/1.0-a/bin/python"
    python.unlink()
    python.symlink_to(os.path.realpath(sys.executable))
    with subprocess.Popen([python, "-c", "import time; time.sleep(300)"]) as hive:
        try:
            yield hive.pid
        finally:
            hive.kill()


async def test_while_a_hive_runs_nothing_is_removed(site: Site) -> None:
    before = names(site)
    with hive_of(site) as pid, pytest.raises(InstallFailedError, match=f"rbee still runs in .*: pid {pid}") as caught:
        await removed(site)
    assert "node stop" in caught.value.hint
    assert names(site) == before


async def test_a_hive_that_was_started_otherwise_is_known_by_its_lock(site: Site) -> None:
    lock = home_of(site) / "run" / "another-host" / "rbee-hive.lock"
    lock.parent.mkdir()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InstallFailedError, match=r"still runs in .*: run/another-host/rbee-hive\.lock"):
            await removed(site)
    await removed(site)


@pytest.mark.parametrize("home", ["", "/.", "/..", "/../.."])
async def test_the_account_itself_and_what_is_above_it_are_never_rbees(home: str, site: Site) -> None:
    account_home = home_of(site).parent
    (account_home / "install.lock").touch()
    with pytest.raises(InstallFailedError, match="is not a directory of rbee's own"):
        await removed(replace(site, home=f"{account_home}{home}"))
    assert names(site)


@pytest.mark.parametrize("sign", ["absent", "link", "directory"])
async def test_a_directory_that_no_queen_has_installed_into_is_left_alone(sign: str, site: Site) -> None:
    lock = home_of(site) / "install.lock"
    lock.unlink()
    if sign == "link":
        lock.symlink_to("token")
    elif sign == "directory":
        lock.mkdir()
    before = names(site)
    with pytest.raises(InstallFailedError, match="no queen has installed rbee in"):
        await removed(site)
    assert names(site) == before


async def test_another_clusters_home_is_left_alone(site: Site) -> None:
    before = names(site)
    (home_of(site) / "token").write_text("somebody-elses\n")
    with pytest.raises(HiveOwnedError, match="has the token of another cluster"):
        await removed(site)
    assert names(site) == before


async def test_another_users_directory_is_left_alone(site: Site) -> None:
    if os.geteuid():
        pytest.skip("needs root to give a directory away")
    os.chown(site.home, 12345, -1)
    with pytest.raises(InstallFailedError, match="no queen has installed rbee in"):
        await removed(site)
    assert "versions" in names(site)


async def test_it_waits_for_an_installation_and_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queen_rbee.nodes.installer._WAIT_S", 0.5)
    told: list[str] = []
    with (home_of(site) / "install.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InstallFailedError, match="another installation"):
            await uninstall(site, told.append, token=TOKEN, keep_models=False)
    assert told == ["another installation is under way there; waiting for it"]


async def test_the_next_installation_may_begin_when_this_one_has_ended(site: Site, tmp_path: Path) -> None:
    assert isinstance(site.shell, LocalShell)
    theirs = home_of(site) / "theirs"
    python = struck(tmp_path, site.shell, "os.remove", "/install.lock", company=theirs)
    assert (await removed(replace(site, python=python))).left == ()
    assert theirs.exists()


async def test_another_cluster_that_was_waited_for_keeps_what_it_has_installed(site: Site) -> None:
    """There was no token when this began."""
    (home_of(site) / "token").unlink()
    told: list[str] = []

    async def begin() -> None:
        with pytest.raises(HiveOwnedError):
            await uninstall(site, told.append, token=TOKEN, keep_models=False)

    async with anyio.create_task_group() as group:
        with (home_of(site) / "install.lock").open() as held, anyio.fail_after(30):
            fcntl.flock(held, fcntl.LOCK_EX)
            group.start_soon(begin)
            while not told:  # noqa: ASYNC110 - until it waits
                await anyio.sleep(0.05)
            (home_of(site) / "token").write_text("somebody-elses\n")
    assert "versions" in names(site)


async def test_a_noisy_shell_of_another_kind_does_no_harm(site: Site) -> None:
    assert isinstance(site.shell, LocalShell)
    site.shell.shell, site.shell.noise = ("tcsh", "-c"), NOISE
    await removed(site)
    assert not home_of(site).exists()


async def test_a_file_in_the_place_of_the_home_is_an_error_for_people(site: Site) -> None:
    await anyio.run_process(["rm", "-rf", site.home])
    home_of(site).write_text("x")
    with pytest.raises(RbeeError, match="is not a directory of rbee's own"):
        await removed(site)
