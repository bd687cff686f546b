"""Looking at a machine through real login shells, with what accounts put in their way."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import anyio
import pytest
from tests.support.local_shell import NOISE, LocalShell, account

from queen_rbee.domain.nodes.probe_report import read_probe
from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.nodes.probe import probe
from rbee_shared.errors import InvalidRequestError, ShellUnusableError

SHELLS = {
    "sh": ("/bin/sh", "-c"),
    "bash": ("bash", "-c"),
    "dash": ("dash", "-c"),
    "busybox": ("busybox", "sh", "-c"),
    "fish": ("fish", "-c"),
    "csh": ("csh", "-c"),
    "tcsh": ("tcsh", "-c"),
}
HOSTILE = [
    "it's", 'say "x"', "a b", "$HOME", "`id`", "back\\slash", "wow!", "!!", "~", "*", "ünï", "{a,b}", "(x)", "%1", "#c",
    "", "\\'", "a\\!b", "-n", "$(id)", "[a-z]", "a;b", "a|b", "a&b", "\\", "<x>", "\\\\'!",
]  # fmt: skip


@pytest.fixture(params=SHELLS)
def shell_argv(request: pytest.FixtureRequest) -> tuple[str, ...]:
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return argv


def test_every_shell_reads_hostile_words_the_same(shell_argv: tuple[str, ...], tmp_path: Path) -> None:
    show = "import sys, json; print(json.dumps(sys.argv[1:]))"
    command = command_line([sys.executable, "-c", show, *HOSTILE])
    result = subprocess.run([*shell_argv, command], env=account(tmp_path), capture_output=True, check=True)
    assert json.loads(result.stdout) == HOSTILE


@pytest.mark.parametrize("noise", ["", NOISE], ids=["quiet", "noisy"])
async def test_every_shell_shows_the_machine(shell_argv: tuple[str, ...], noise: str, tmp_path: Path) -> None:
    shell = LocalShell(shell_argv, account(tmp_path / "home"), noise=noise)
    found = await probe(shell, "~/.rbee")
    uname = os.uname()
    assert (found.system, found.machine, found.host) == (uname.sysname, uname.machine, uname.nodename)
    assert found.home == str(tmp_path / "home" / ".rbee")
    assert found.writable
    assert found.disk_free_bytes is not None
    assert found.pythons
    assert found.cpu
    assert (found.installed, found.hive) == (None, None)


@pytest.mark.parametrize("sh", [["dash"], ["bash", "--posix"], ["busybox", "sh"]], ids=" ".join)
def test_whatever_sh_is_there_reads_the_program(sh: list[str], tmp_path: Path) -> None:
    if shutil.which(sh[0]) is None:
        pytest.skip(f"{sh[0]} is not installed")
    program_text = files("queen_rbee.nodes.far").joinpath("probe.sh").read_text()
    script = f"nonce=n0n\nasked='~/.rbee'\n{program_text}"
    env = account(tmp_path)
    result = subprocess.run([*sh, "-s"], input=script.encode(), env=env, capture_output=True, check=False)
    found = read_probe(result.stdout.decode(), "n0n")
    assert (found.home, found.writable) == (f"{tmp_path}/.rbee", True)
    assert found.pythons
    assert result.stderr == b""


async def test_the_look_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await probe(LocalShell(env=account(home)), "~/.rbee")
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("name", ["it's", 'say "x"', "$HOME", "`id`", "back\\slash", "a b", "-n", "wow!", "*"])
async def test_homes_of_any_name_are_found(name: str, tmp_path: Path) -> None:
    shell = LocalShell(env=account(tmp_path / name))
    assert (await probe(shell, "~/.rbee")).home == f"{tmp_path}/{name}/.rbee"
    assert (await probe(shell, f"{tmp_path}/{name}/x")).home == f"{tmp_path}/{name}/x"


@pytest.mark.parametrize("home", ["relative", "", "~other/x", "/a\nb", "/a\x00b"])
async def test_a_home_that_cannot_be_said_is_refused(home: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError):
        await probe(LocalShell(env=account(tmp_path)), home)


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        (("/bin/false",), "it said nothing"),
        (("/bin/echo", "This account is currently not available."), "not available"),
        (("/bin/cat",), "No such file"),
    ],
)
async def test_an_account_without_a_shell_is_told_with_its_own_words(
    shell: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ShellUnusableError, match=words):
        await probe(LocalShell(shell, account(tmp_path)), "~/.rbee")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_a_python_that_hangs_is_named(tmp_path: Path) -> None:
    hanging = program(tmp_path / "bin" / "python3", "#!/bin/sh\nexec sleep 60\n")
    shell = LocalShell(env=account(tmp_path / "home", PATH=f"{hanging.parent}:/usr/bin:/bin"), grace_s=0.1)
    began_s = time.monotonic()
    with pytest.raises(ShellUnusableError, match=f"while asking {hanging}"):
        await probe(shell, "~/.rbee", timeout_s=3.0)
    assert time.monotonic() - began_s < 30


async def test_pythons_that_break_or_lie_are_passed_over(tmp_path: Path) -> None:
    broken = program(tmp_path / "bin" / "python3", "#!/bin/sh\necho 'python {\"path\": 1}'\n")
    program(tmp_path / "bin" / "python3.12", "#!/bin/sh\nexit 127\n")
    (tmp_path / "bin" / "python3.13").mkdir()
    found = await probe(LocalShell(env=account(tmp_path / "home", PATH=f"{broken.parent}:/usr/bin:/bin")), "~/.rbee")
    assert {python.path for python in found.pythons}
    assert all(python.is_recent for python in found.pythons)


async def test_a_thousand_pythons_do_not_take_for_ever(tmp_path: Path) -> None:
    paths = []
    for number in range(200):
        program(tmp_path / str(number) / "python3", "#!/bin/sh\nexit 1\n")
        paths.append(str(tmp_path / str(number)))
    shell = LocalShell(env=account(tmp_path / "home", PATH=":".join([*paths, "/usr/bin", "/bin"])))
    assert (await probe(shell, "~/.rbee")).system == os.uname().sysname


async def test_an_environment_on_the_path_is_seen_through(tmp_path: Path) -> None:
    await anyio.run_process([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")])
    shell = LocalShell(env=account(tmp_path / "home", PATH=f"{tmp_path}/venv/bin:/usr/bin:/bin"))
    found = await probe(shell, "~/.rbee")
    assert found.pythons
    assert not any(python.path.startswith(str(tmp_path)) for python in found.pythons)


def without_programs(tools: Path, *names: str) -> list[str]:
    """Runs what follows where /usr/bin has these programs only."""
    tools.mkdir()
    for name in names:
        shutil.copy(shutil.which(name) or "", tools / name)
    mount = f'{shutil.which("mount")} --bind "$0" /usr/bin && exec "$@"'
    hidden = [shutil.which("unshare") or "unshare", "-m", "/bin/sh", "-c", mount, str(tools)]
    if os.geteuid() or subprocess.run([*hidden, "/usr/bin/id"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount namespaces")
    return hidden


async def test_without_any_python_the_rest_is_still_known(tmp_path: Path) -> None:
    hidden = without_programs(
        tmp_path / "bin", "sh", "uname", "id", "grep", "dirname", "df", "tail", "head", "tr", "sed"
    )
    shell = LocalShell(env=account(tmp_path / "home"), wrapped_in=hidden)
    found = await probe(shell, "~/.rbee")
    assert found.pythons == ()
    assert found.compiler is None
    assert found.disk_free_bytes is not None


@pytest.mark.parametrize("alive", [True, False])
async def test_a_hive_that_is_noted_is_found_and_whether_it_lives(alive: bool, tmp_path: Path) -> None:
    run = tmp_path / "home" / ".rbee" / "run" / os.uname().nodename
    run.mkdir(parents=True)
    pid = os.getpid() if alive else 2**22 - 1
    note = {"url": "http://127.0.0.1:9200", "pid": pid, "create_time": 1.5, "instance": "i"}
    (run / "rbee-hive.json").write_text(json.dumps(note))
    found = await probe(LocalShell(env=account(tmp_path / "home")), "~/.rbee")
    assert found.hive is not None
    assert (found.hive.pid, found.hive.alive, found.hive.url) == (pid, alive, "http://127.0.0.1:9200")


async def test_huge_and_binary_notes_do_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "home" / ".rbee"
    (home / "current").mkdir(parents=True)
    (home / "current" / "installed.json").write_bytes(os.urandom(1_000_000))
    found = await probe(LocalShell(env=account(tmp_path / "home")), "~/.rbee")
    assert found.installed is None
    assert found.runs is None
