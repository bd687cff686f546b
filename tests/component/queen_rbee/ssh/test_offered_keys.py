"""Who is not let in learns which keys were tried, those of the agent too, and how to put one there."""

import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tests.support.sshd import Sshd, make_key

from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.target import Target
from rbee_shared.errors import SshAuthFailedError, SshHostKeyChangedError, SshHostKeyUnknownError


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The socket of an agent without keys, which SSH finds."""
    with tempfile.TemporaryDirectory(prefix="agent-") as directory:  # a socket's path must be short
        path = Path(directory) / "s"
        with _running_agent(path):
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            yield path


@contextmanager
def _running_agent(path: Path) -> Generator[None]:
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        try:
            yield
        finally:
            process.kill()


def _hold(key: Path) -> None:
    subprocess.run(["ssh-add", "-q", key], check=True, stdin=subprocess.DEVNULL)


async def _refusal(dialler: Dialler, target: Target) -> SshAuthFailedError:
    with pytest.raises(SshAuthFailedError) as refused:
        await dialler.dial(target)
    return refused.value


@pytest.fixture
def closed(server: Sshd, tmp_path: Path) -> Sshd:
    """It lets none of the keys in that these tests have."""
    make_key(tmp_path / "other", "somebody else")
    server.authorise(tmp_path / "other.pub")
    return server


def _fingerprint(key: Path) -> str:
    said = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


async def test_the_agents_keys_are_named_by_their_comment_or_fingerprint(
    dialler: Dialler, target: Target, closed: Sshd, agent: Path, tmp_path: Path
) -> None:
    make_key(tmp_path / "work", "work laptop")
    make_key(tmp_path / "bare", "")
    for key in (tmp_path / "work", tmp_path / "bare", closed.key):
        _hold(key)

    error = await _refusal(dialler, target)

    bare = error.details["keys_tried"][1]
    assert error.details["keys_tried"] == ["work laptop (ssh-ed25519)", bare, "me@blep (ssh-ed25519)"]
    assert bare in {f"{_fingerprint(tmp_path / 'bare')} (ssh-ed25519)", f"{tmp_path / 'bare'} (ssh-ed25519)"}
    assert error.message.endswith(f"tried: {', '.join(error.details['keys_tried'])}")


async def test_a_server_that_has_had_enough_of_keys_has_not_let_them_in(
    dialler: Dialler, target: Target, closed: Sshd, agent: Path, tmp_path: Path
) -> None:
    for number in range(12):
        make_key(tmp_path / f"key{number}", f"number {number}")
        _hold(tmp_path / f"key{number}")

    error = await _refusal(dialler, target)

    assert len(error.details["keys_tried"]) == 13
    assert error.message.endswith("number 9 (ssh-ed25519), 3 more")


async def test_a_comment_that_is_no_text_is_shown_as_far_as_it_is(
    dialler: Dialler, target: Target, closed: Sshd, agent: Path, tmp_path: Path
) -> None:
    make_key(tmp_path / "latin", b"caf\xe9".decode(errors="surrogateescape"))
    _hold(tmp_path / "latin")
    assert "caf\ufffd (ssh-ed25519)" in (await _refusal(dialler, target)).message


async def test_an_agent_without_keys_and_one_that_says_nothing(
    dialler: Dialler, target: Target, closed: Sshd, agent: Path, tmp_path: Path
) -> None:
    error = await _refusal(dialler, target)
    assert error.message.endswith("tried: me@blep (ssh-ed25519), an agent without a key for it")

    closed.ssh.joinpath("config").write_text(f"IdentityAgent {agent.with_name('mute')}\n")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(agent.with_name("mute")))
        error = await _refusal(dialler, target)
    assert error.message.endswith("tried: me@blep (ssh-ed25519), an agent that does not answer")


async def test_the_next_step_has_the_port_and_the_nodes_name(dialler: Dialler, target: Target, closed: Sshd) -> None:
    hint = (await _refusal(dialler, target)).hint
    assert f"ssh-copy-id -p {closed.port} root@127.0.0.1" in hint
    assert "rbee-keeper node add mac --key FILE" in hint


@pytest.mark.parametrize("key_type", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("known", [False, True])
async def test_a_host_key_that_is_not_trusted_comes_with_the_command_that_shows_it_there(
    dialler: Dialler, target: Target, server: Sshd, key_type: str, known: bool
) -> None:
    if not known:
        (server.ssh / "known_hosts").unlink()
    await anyio.to_thread.run_sync(server.stop)
    server.new_host_key(key_type)
    await anyio.to_thread.run_sync(server.start)

    with pytest.raises((SshHostKeyUnknownError, SshHostKeyChangedError)) as refused:
        await dialler.dial(target)

    assert f"ssh-keygen -lf /etc/ssh/ssh_host_{key_type}_key.pub" in refused.value.hint
