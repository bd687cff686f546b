"""Putting a version on a node, and everything that can go wrong there: real environments, real pip, a real shell.

Rbee itself is a stand-in of a few kilobytes here; the real one is installed in `test_installing_this_rbee`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.local_shell import NOISE, LocalShell, account
from tests.support.struck import struck
from tests.support.tiny_rbee import library, tiny_rbee, tiny_wheelhouse
from typing_extensions import override

from queen_rbee.domain.nodes.probe_report import Installed
from queen_rbee.nodes import far_program
from queen_rbee.nodes.far_program import Site
from queen_rbee.nodes.here import OwnRbee
from queen_rbee.nodes.installer import Version, install
from queen_rbee.nodes.payload import Part, Payload, payload
from queen_rbee.nodes.probe import probe
from queen_rbee.nodes.wheelhouse import Wheelhouse
from rbee_shared.errors import DiskFullError, HiveOwnedError, InstallFailedError, RbeeError, RequestTimeoutError

STEPS = ["making an environment", "unpacking 1 libraries", "trying it out"]
TOKEN = "token-of-this-cluster"


Parcel = Callable[..., Awaitable[Payload]]


@dataclass
class Node:
    """An account on a machine."""

    home: Path
    shell: LocalShell
    told: list[str] = field(default_factory=list)
    hear: Callable[[str], None] = lambda _: None

    @property
    def rbee(self) -> Path:
        return self.home / ".rbee"

    @property
    def site(self) -> Site:
        return Site(self.shell, "mac", str(self.rbee), os.path.realpath(sys.executable))

    @property
    def versions(self) -> list[Path]:
        return sorted((self.rbee / "versions").glob("*"))

    @property
    def current(self) -> str | None:
        """What the current version says, run as the queen runs it."""
        link = self.rbee / "current"
        if not link.is_symlink():
            return None
        python, script = f"{link.resolve()}/bin/python", f"{link.resolve()}/bin/rbee-hive"
        return subprocess.run([python, script], capture_output=True, text=True, check=True).stdout.strip()

    async def install(self, sent: Payload, *, token: str | None = TOKEN, limit_s: float = 100.0) -> Installed:
        def tell(line: str) -> None:
            self.told.append(line)
            self.hear(line)

        return await install(self.site, sent, tell, token=token, limit_s=limit_s)


@pytest.fixture
def node(tmp_path: Path) -> Generator[Node]:
    home = tmp_path / 'it\'s "my" $HOME'
    node = Node(home, LocalShell(env=account(home)))
    yield node
    left = subprocess.run(["pgrep", "-f", "--", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == "", "nothing that was started for an installation may go on"


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    """Makes payloads with one library, unless there is to be no wheelhouse; `own`: the rbee in it."""

    async def make(own: OwnRbee | None = None, *, wheelhouse: bool = True) -> Payload:
        house = tiny_wheelhouse(tmp_path / "house", library("smallish", more=b"#" * 100_000)) if wheelhouse else None
        return await packed_up(own or tiny_rbee(), house)

    return make


@contextmanager
def started(argv: list[str]) -> Generator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(argv) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Installation:
    """Version 1.0 on an account, to be copied to others: it is not made anew for every test."""

    home: Path
    done: Installed

    def copied_to(self, node: Node) -> Installed:
        shutil.copytree(self.home, node.rbee, symlinks=True)
        return self.done


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    home = tmp_path_factory.mktemp("first")
    node, own = Node(home, LocalShell(env=account(home))), tiny_rbee("1.0")
    house = tiny_wheelhouse(tmp_path_factory.mktemp("house"), library("smallish"))
    return Installation(node.rbee, anyio.run(node.install, payload(own, own.tag, house, [])))


@pytest.fixture(scope="session")
def second(first: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Version 2.0 on it, with 1.0 as the one before."""
    home = tmp_path_factory.mktemp("second")
    node, own = Node(home, LocalShell(env=account(home))), tiny_rbee("2.0")
    first.copied_to(node)
    house = tiny_wheelhouse(tmp_path_factory.mktemp("house"), library("smallish"))
    return Installation(node.rbee, anyio.run(node.install, payload(own, own.tag, house, [])))


def target(link: Path) -> str:
    return str(link.readlink())


async def packed_up(own: OwnRbee, house: Wheelhouse | None, *engines: Path) -> Payload:
    return await anyio.to_thread.run_sync(payload, own, own.tag, house, engines)


async def test_a_bare_account_gets_a_version_that_runs_from_its_own_directory(node: Node, parcel: Parcel) -> None:
    sent = await parcel()
    done = await node.install(sent)
    assert node.current == "rbee-hive 1.0"
    assert [path.name for path in node.versions] == [done.id]
    assert (done.version, done.wheel_sha256) == ("1.0", sent.parts[0].sha256)
    assert [line for line in node.told if line.startswith(tuple(STEPS))] == [
        f"making an environment with Python {sys.version.split()[0]}",
        "unpacking 1 libraries and installing rbee 1.0",
        "trying it out",
    ]
    assert (node.rbee / "token").read_text().strip() == TOKEN
    found = await probe(node.shell, "~/.rbee")
    assert (found.installed, found.runs) == (done, "1.0")
    assert Version.of(str(node.rbee), done).argv("rbee-hive") == [
        f"{node.rbee}/versions/{done.id}/bin/python", f"{node.rbee}/versions/{done.id}/bin/rbee-hive",
    ]  # fmt: skip


async def test_everything_is_the_owners_alone_and_nothing_lies_beside_it(node: Node, parcel: Parcel) -> None:
    await node.install(await parcel())
    assert [path.name for path in node.home.iterdir()] == [".rbee"]
    assert [path.stat().st_mode & 0o777 for path in (node.rbee, node.rbee / "versions")] == [0o700, 0o700]
    assert {path.stat().st_mode & 0o777 for path in node.rbee.glob("*.lock")} == {0o600}
    assert sorted(path.name for path in node.rbee.iterdir()) == ["current", "install.lock", "token", "versions"]
    assert not (node.versions[0] / "upload").exists()


@pytest.mark.allow_blocking("looks at every process at each line that is told")
async def test_the_token_stands_neither_in_a_command_line_nor_in_an_environment(node: Node, parcel: Parcel) -> None:
    seen: list[bytes] = []

    def look(_: str) -> None:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                seen.append((entry / "cmdline").read_bytes() + (entry / "environ").read_bytes())
            except OSError:
                continue

    node.hear = look
    await node.install(await parcel())
    assert any(b"sys.stdin.buffer.read" in process for process in seen), "the installer was looked at"
    assert not any(TOKEN.encode() in process for process in seen)
    assert not any(TOKEN in command for command in node.shell.commands)


@pytest.mark.parametrize("shell", [("fish", "-c"), ("tcsh", "-c"), ("/bin/sh", "-c")])
async def test_noisy_shells_of_other_kinds_are_installed_through(
    shell: tuple[str, ...], node: Node, parcel: Parcel
) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    node.shell = LocalShell(shell, account(node.home), noise=NOISE)
    await node.install(await parcel())
    assert node.current == "rbee-hive 1.0"
    assert not any("Welcome" in line for line in node.told)


async def test_an_update_keeps_the_one_before_and_removes_the_older_ones(
    node: Node, parcel: Parcel, first: Installation
) -> None:
    done = [first.copied_to(node)]
    done += [await node.install(await parcel(tiny_rbee(version))) for version in ("2.0", "3.0")]
    assert node.current == "rbee-hive 3.0"
    assert target(node.rbee / "previous") == f"versions/{done[1].id}"
    assert {path.name for path in node.versions} == {done[1].id, done[2].id}


async def test_a_version_that_something_runs_from_is_not_removed(
    node: Node, parcel: Parcel, first: Installation
) -> None:
    directory = node.rbee / "versions" / first.copied_to(node).id
    running = [f"{directory}/bin/python", "-c", "import time; time.sleep(300)"]
    with started(running) as hive:
        for version in ("2.0", "3.0"):
            await node.install(await parcel(tiny_rbee(version)))
        assert directory.exists()
        assert hive.poll() is None
    await node.install(await parcel(tiny_rbee("4.0")))
    assert not directory.exists()


async def test_nor_is_one_whose_process_was_started_through_the_link(
    node: Node, parcel: Parcel, first: Installation
) -> None:
    """Its command line does not tell which version it was; what it has in memory does."""
    directory = node.rbee / "versions" / first.copied_to(node).id
    hold = "import mmap, sys, time; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, access=1); time.sleep(300)"
    python = f"{node.rbee}/current/bin/python"
    with started([python, "-c", hold, f"{node.rbee}/current/installed.json"]) as hive:
        await anyio.to_thread.run_sync(until_in_memory, directory, hive.pid)
        for version in ("2.0", "3.0"):
            await node.install(await parcel(tiny_rbee(version)))
        assert directory.exists()


def until_in_memory(directory: Path, pid: int) -> None:
    deadline_s = time.monotonic() + 30
    while str(directory) not in Path(f"/proc/{pid}/maps").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        pytest.param(tiny_rbee("2.0", hive="sys.exit(3)"), "trying out rbee-hive failed", id="does not start"),
        pytest.param(tiny_rbee("2.0", hive="raise RuntimeError('odd')"), "RuntimeError: odd", id="crashes"),
        pytest.param(replace(tiny_rbee("1.5"), version="2.0"), "does not say that it is 2.0", id="is another one"),
    ],
)
async def test_a_broken_update_leaves_the_version_before(
    own: OwnRbee, words: str, node: Node, parcel: Parcel, first: Installation
) -> None:
    before = first.copied_to(node)
    with pytest.raises(InstallFailedError, match=words):
        await node.install(await parcel(own))
    assert node.current == "rbee-hive 1.0"
    assert [path.name for path in node.versions] == [before.id]
    assert not (node.rbee / "previous").exists()


async def test_after_a_failed_first_installation_there_is_nothing(node: Node, parcel: Parcel) -> None:
    with pytest.raises(InstallFailedError):
        await node.install(await parcel(tiny_rbee(hive="sys.exit(3)")))
    assert list(node.home.iterdir()) == []


@dataclass(frozen=True)
class Deadly(Payload):
    """Kills its receiver when a part of it is there."""

    kill: Callable[[], None] = lambda: None

    @override
    async def tar(self) -> AsyncGenerator[bytes]:
        left_bytes = self.size_bytes // 3
        async for chunk in super().tar():
            yield chunk
            if 0 <= left_bytes < len(chunk):
                self.kill()
            left_bytes -= len(chunk)


@pytest.mark.parametrize("step", ["upload", *STEPS])
async def test_killed_at_any_step_the_version_before_stays_and_the_next_one_tidies_up(
    step: str, node: Node, parcel: Parcel, first: Installation
) -> None:
    before, update = first.copied_to(node), await parcel(tiny_rbee("2.0"))
    node.hear = lambda line: node.shell.kill() if line.startswith(step) else None
    deadly = Deadly(**vars(update), kill=node.shell.kill) if step == "upload" else update
    with pytest.raises(InstallFailedError, match="ended with status -9 before it was done"):
        await node.install(deadly)
    assert node.current == "rbee-hive 1.0"
    assert target(node.rbee / "current") == f"versions/{before.id}"
    assert len(node.versions) == 2, "something half made was left"

    node.hear = lambda _: None
    await node.install(update)
    assert node.current == "rbee-hive 2.0"
    assert len(node.versions) == 2


@pytest.mark.parametrize(
    ("event", "path"),
    [
        ("os.symlink", "/.current."),
        ("os.rename", "/.current."),
        ("os.symlink", "/.previous."),
        ("os.rename", "/.previous."),
        ("shutil.rmtree", "/versions/1.0-"),
    ],
)
async def test_killed_between_any_two_steps_of_the_swap_no_version_is_lost(
    event: str, path: str, node: Node, parcel: Parcel, second: Installation, tmp_path: Path
) -> None:
    before, update = second.copied_to(node), await parcel(tiny_rbee("3.0"))
    python = struck(tmp_path, node.shell, event, path)
    with pytest.raises(InstallFailedError, match="ended with status -9 before it was done"):
        await install(replace(node.site, python=python), update, node.told.append, token=TOKEN)
    assert node.current in {"rbee-hive 2.0", "rbee-hive 3.0"}
    assert (node.rbee / "previous" / "installed.json").is_file()
    assert target(node.rbee / "previous") != target(node.rbee / "current")

    done = await node.install(update)
    assert node.current == "rbee-hive 3.0"
    assert target(node.rbee / "previous") == f"versions/{before.id}"
    assert {version.name for version in node.versions} == {before.id, done.id}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
async def test_a_hang_up_in_mid_upload_leaves_nothing_half_made(share: float, node: Node, parcel: Parcel) -> None:
    sent = await parcel()
    node.shell.hang_up_after_bytes = int(20_000 + share * sent.size_bytes)
    with pytest.raises(InstallFailedError):
        await node.install(sent)
    assert list(node.home.iterdir()) == []


async def test_a_queen_that_goes_away_takes_her_installation_with_her(node: Node, parcel: Parcel) -> None:
    sent = await parcel(tiny_rbee(hive="import time; time.sleep(300)"))
    with pytest.raises(RequestTimeoutError):
        await node.install(sent, limit_s=8.0)
    with anyio.fail_after(20):
        while node.rbee.exists() and any(node.versions):  # noqa: ASYNC110 - a directory sends no event
            await anyio.sleep(0.1)


async def test_a_queen_that_falls_silent_is_not_waited_for(
    node: Node, parcel: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cable is pulled out: no end of file ever comes."""
    monkeypatch.setattr("queen_rbee.nodes.installer.SILENCE_S", 6.0)
    monkeypatch.setattr(far_program, "_SIGN_OF_LIFE_S", 3600.0)
    began_s = time.monotonic()
    with pytest.raises(InstallFailedError, match="broken off"):
        await node.install(await parcel(tiny_rbee(hive="import time; time.sleep(300)")))
    assert time.monotonic() - began_s < 60
    assert list(node.home.iterdir()) == []


async def test_two_at_once_come_one_after_the_other(node: Node, parcel: Parcel, tmp_path: Path) -> None:
    other = Node(node.home, LocalShell(env=account(node.home)))
    first, second = await parcel(tiny_rbee("1.0")), await parcel(tiny_rbee("2.0"))
    async with anyio.create_task_group() as group:
        group.start_soon(node.install, first)
        group.start_soon(other.install, second)
    assert sorted([*node.told, *other.told]).count("another installation is under way there; waiting for it") == 1
    assert len(node.versions) == 2
    assert node.current in {"rbee-hive 1.0", "rbee-hive 2.0"}
    assert target(node.rbee / "previous") != target(node.rbee / "current")


async def test_two_at_once_of_the_same_version_make_it_once_and_keep_the_one_before(
    node: Node, parcel: Parcel, first: Installation
) -> None:
    before, update = first.copied_to(node), await parcel(tiny_rbee("2.0"))
    done: list[Installed] = []

    async def one(account: Node) -> None:
        done.append(await account.install(update))

    async with anyio.create_task_group() as group:
        group.start_soon(one, node)
        group.start_soon(one, Node(node.home, LocalShell(env=account(node.home))))
    assert done[0] == done[1]
    assert node.current == "rbee-hive 2.0"
    assert target(node.rbee / "previous") == f"versions/{before.id}"
    assert {version.name for version in node.versions} == {before.id, done[0].id}


async def test_what_is_there_already_is_not_even_sent(node: Node, parcel: Parcel, first: Installation) -> None:
    class Unsent(Payload):
        @override
        async def tar(self) -> AsyncGenerator[bytes]:
            raise AssertionError("nobody has asked for it")
            yield b""

    there = first.copied_to(node)
    assert await node.install(Unsent(**vars(await parcel()))) == there
    assert [version.name for version in node.versions] == [there.id]


@pytest.mark.parametrize("damage", ["the program", "the interpreter", "the note"])
async def test_one_that_is_damaged_is_made_anew_and_the_one_before_stays(
    damage: str, node: Node, parcel: Parcel, second: Installation
) -> None:
    damaged = second.copied_to(node)
    directory, before = node.rbee / "versions" / damaged.id, target(node.rbee / "previous")
    if damage == "the program":
        (directory / "bin" / "rbee-hive").write_text("raise SystemExit(3)\n")
    elif damage == "the interpreter":
        (directory / "bin" / "python").unlink()
    else:
        (directory / "installed.json").write_text(json.dumps({"wheel_sha256": damaged.wheel_sha256, "id": damaged.id}))
    done = await node.install(await parcel(tiny_rbee("2.0")))
    assert node.current == "rbee-hive 2.0"
    assert target(node.rbee / "previous") == before
    assert [target(node.rbee / "current"), before] == [
        f"versions/{done.id}",
        "versions/" + min(version.name for version in node.versions),
    ]
    assert damaged.id not in {version.name for version in node.versions}


@contextmanager
def another_installation(node: Node) -> Generator[None]:
    """Goes on for the length of the block."""
    node.rbee.mkdir(exist_ok=True)
    with (node.rbee / "install.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queen_rbee.nodes.installer.SILENCE_S", 3.0)
    monkeypatch.setattr(far_program, "_SIGN_OF_LIFE_S", 0.2)


@pytest.mark.usefixtures("short_silence")
async def test_who_waits_too_long_for_another_one_is_told(
    node: Node, parcel: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queen_rbee.nodes.installer._WAIT_S", 8.0)
    with another_installation(node), pytest.raises(InstallFailedError, match="another installation has been under way"):
        await node.install(await parcel())


@pytest.mark.usefixtures("short_silence")
async def test_who_waits_longer_than_a_silence_gets_its_turn(node: Node, parcel: Parcel) -> None:
    async with anyio.create_task_group() as group:
        with another_installation(node):
            group.start_soon(node.install, await parcel())
            await anyio.sleep(6)
            assert node.told[1:] == ["another installation is under way there; waiting for it"]
    assert node.current == "rbee-hive 1.0"


async def test_who_waits_ends_with_its_queen(node: Node, parcel: Parcel) -> None:
    node.shell.grace_s = 60
    with another_installation(node), anyio.fail_after(30), pytest.raises(RequestTimeoutError):
        await node.install(await parcel(), limit_s=3)


async def test_who_waits_ends_when_its_queen_falls_silent(
    node: Node, parcel: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queen_rbee.nodes.installer.SILENCE_S", 3.0)
    monkeypatch.setattr(far_program, "_SIGN_OF_LIFE_S", 5.0)
    with another_installation(node), pytest.raises(InstallFailedError, match="broken off"):
        await node.install(await parcel())


async def test_who_waits_for_one_that_fails_and_takes_the_home_away_makes_it_again(node: Node, parcel: Parcel) -> None:
    async with anyio.create_task_group() as group:
        with another_installation(node):
            group.start_soon(node.install, await parcel())
            with anyio.fail_after(30):
                while len(node.told) < 2:  # noqa: ASYNC110 - until it waits
                    await anyio.sleep(0.05)
            (node.rbee / "install.lock").unlink()
            node.rbee.rmdir()
    assert node.current == "rbee-hive 1.0"


async def test_another_clusters_account_is_refused_by_fingerprint(node: Node, parcel: Parcel) -> None:
    node.rbee.mkdir()
    (node.rbee / "token").write_text("somebody-elses\n")
    with pytest.raises(HiveOwnedError) as caught:
        await node.install(await parcel())
    assert hashlib.sha256(b"somebody-elses").hexdigest()[:6] in caught.value.message
    assert "somebody-elses" not in str(caught.value.body())
    assert (node.rbee / "token").read_text() == "somebody-elses\n"
    assert [path.name for path in node.rbee.iterdir()] == ["token"], "no sign of an installation that was none"


async def test_the_same_cluster_is_welcome_again_and_without_a_token_none_is_written(
    node: Node, parcel: Parcel
) -> None:
    await node.install(await parcel(), token=None)
    assert not (node.rbee / "token").exists()
    await node.install(await parcel())
    await node.install(await parcel())
    assert (node.rbee / "token").stat().st_mode & 0o777 == 0o600


async def test_engines_go_where_a_hive_looks_for_them(node: Node, tmp_path: Path, parcel: Parcel) -> None:
    engine = tmp_path / "cpu-0.3.36-cp311-linux-x86_64"
    engine.mkdir()
    own = tiny_rbee()
    (node.rbee / "wheels" / engine.name).mkdir(parents=True)
    (node.rbee / "wheels" / engine.name / "llama_cpp_python-0.0.1-py3-none-any.whl").touch()
    wheel = engine / "llama_cpp_python-0.3.36-py3-none-any.whl"
    wheel.write_bytes(library("llama_cpp_python", "0.3.36").content)
    await node.install(await packed_up(own, tiny_wheelhouse(tmp_path / "house"), engine))
    placed = list((node.rbee / "wheels" / engine.name).iterdir())
    assert [path.name for path in placed] == [wheel.name]
    assert placed[0].read_bytes() == wheel.read_bytes()


async def test_a_library_that_is_not_the_locked_one_is_not_installed(node: Node, tmp_path: Path) -> None:
    house = tiny_wheelhouse(tmp_path / "house", library("smallish"))
    (house.path / house.files[0].name).write_bytes(library("smallish", more=b"import evil\n").content)
    with pytest.raises(InstallFailedError, match="a package is not the one that was locked"):
        await node.install(await packed_up(tiny_rbee(), house))
    assert list(node.home.iterdir()) == []


async def test_a_file_that_changes_while_it_is_sent_is_noticed(node: Node, parcel: Parcel) -> None:
    sent = await parcel()
    changed = next(part.source for part in sent.parts if isinstance(part.source, Path))
    changed.write_bytes(b"short")
    with pytest.raises(InstallFailedError, match="arrived otherwise than it was sent"):
        await node.install(sent)
    assert list(node.home.iterdir()) == []


async def test_a_file_that_is_gone_before_it_is_sent_is_named(node: Node, parcel: Parcel) -> None:
    sent = await parcel()
    gone = next(part.source for part in sent.parts if isinstance(part.source, Path))
    gone.unlink()
    with pytest.raises(InstallFailedError, match=f"{gone.name} cannot be read: No such file") as caught:
        await node.install(sent)
    assert "again" in caught.value.hint
    assert list(node.home.iterdir()) == []


async def test_what_was_not_announced_is_not_taken(node: Node, parcel: Parcel) -> None:
    sent = await parcel()

    class Smuggler(Payload):
        @override
        async def tar(self) -> AsyncGenerator[bytes]:
            async for chunk in replace(sent, parts=(*sent.parts, Part("x/y", b"z", 1, ""))).tar():
                yield chunk

    with pytest.raises(InstallFailedError, match="'x/y' came, and was not announced"):
        await node.install(Smuggler(**vars(sent)))
    assert list(node.home.iterdir()) == []


async def test_without_an_index_the_next_step_is_a_wheelhouse(node: Node, parcel: Parcel) -> None:
    lock = f"smallish==1.0 --hash=sha256:{'a' * 64}\n".replace(" --", " \\\n    --")
    node.shell.env = account(node.home, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    with pytest.raises(InstallFailedError, match="it reaches no package index") as caught:
        await node.install(await parcel(tiny_rbee(lock=lock), wheelhouse=False))
    assert "rbee-keeper node wheelhouse mac" in caught.value.hint
    assert list(node.home.iterdir()) == []


async def test_settings_of_the_account_cannot_lead_pip_astray(node: Node, parcel: Parcel) -> None:
    elsewhere = node.home.parent / "elsewhere"
    node.shell.env = account(
        node.home, PIP_TARGET=str(elsewhere), PIP_USER="1", PIP_NO_BINARY=":all:", PIP_REQUIRE_VIRTUALENV="1",
        PYTHONPATH=str(elsewhere), PYTHONHOME=str(elsewhere), RBEE_HOME=str(elsewhere), PIP_LOG=str(elsewhere),
    )  # fmt: skip
    await node.install(await parcel())
    assert node.current == "rbee-hive 1.0"
    assert not elsewhere.exists()


async def test_a_full_disk_is_said_and_the_version_before_stays(
    node: Node, parcel: Parcel, first: Installation
) -> None:
    if os.geteuid():
        pytest.skip("needs root to mount a small disk")
    first.copied_to(node)
    taken_bytes = sum(path.lstat().st_blocks * 512 for path in node.rbee.rglob("*"))
    shutil.move(node.rbee, node.home.parent / "kept")
    node.rbee.mkdir()
    for more in (0.05, 0.2, 0.5, 0.9):  # in the upload, in the environment, in pip, in the end
        size = int(taken_bytes * (1 + more))
        await anyio.run_process(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(node.rbee)])
        try:
            await anyio.run_process(["cp", "-a", f"{node.home.parent}/kept/.", str(node.rbee)])
            with pytest.raises(DiskFullError):
                await node.install(await parcel(tiny_rbee("2.0")))
            assert node.current == "rbee-hive 1.0"
            assert len(node.versions) == 1
        finally:
            await anyio.run_process(["umount", str(node.rbee)])
    node.rbee.rmdir()


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true", "/bin/cat"])
async def test_a_python_that_is_none_is_named(python: str, node: Node, parcel: Parcel) -> None:
    site = replace(node.site, python=python)
    with pytest.raises(InstallFailedError, match=f"mac: {python} ended with status"):
        await install(site, await parcel(), node.told.append, token=None, limit_s=30)


async def test_a_home_that_is_a_file_or_not_ours_to_write_is_an_error_for_people(node: Node, parcel: Parcel) -> None:
    node.rbee.write_text("x")
    with pytest.raises(RbeeError, match=r"\.rbee"):
        await node.install(await parcel())


async def test_a_link_in_the_place_of_the_lock_is_not_followed(node: Node, parcel: Parcel) -> None:
    node.rbee.mkdir()
    (node.rbee / "install.lock").symlink_to(node.home / "precious")
    with pytest.raises(InstallFailedError):
        await node.install(await parcel())
    assert not (node.home / "precious").exists()


@pytest.mark.parametrize("version", ["3.12", "3.13"])
async def test_other_pythons_take_it_too(version: str, node: Node, parcel: Parcel) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} here")
    site = replace(node.site, python=str(found[-1]))
    done = await install(site, await parcel(), node.told.append, token=None)
    assert done.python.startswith(version)
    assert node.current == "rbee-hive 1.0"


async def test_what_is_sent_is_listed_with_its_size(parcel: Parcel) -> None:
    sent = await parcel()
    names = [part.name.split("/")[0] for part in sent.parts]
    assert names == ["rbee", "pip", "libraries.lock", "wheelhouse"]
    assert sent.size_bytes == sum(part.size_bytes for part in sent.parts)
    assert json.dumps([part.sha256 for part in sent.parts])
