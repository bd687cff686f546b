"""Getting in, and every way of not getting in: each has its own code and says what was tried."""

import socket
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.support.sshd import Sshd, free_port, make_key

from queen_rbee.ssh.connection import connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.host_keys import HostKeys
from queen_rbee.ssh.target import Target
from rbee_shared.errors import (
    InvalidRequestError,
    SshAuthFailedError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
    SshUnreachableError,
)


async def _says_hello(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target) as connection:
        finished = await connection.run("echo hello", timeout_s=10)
    assert (finished.status, finished.stdout) == (0, b"hello\n")


async def test_a_key_that_is_let_in_and_a_host_key_that_is_known(dialler: Dialler, target: Target) -> None:
    await _says_hello(dialler, target)


async def test_nobody_listens(dialler: Dialler, target: Target) -> None:
    with pytest.raises(SshUnreachableError, match="mac"):
        await dialler.dial(replace(target, port=free_port()))


async def test_a_name_that_does_not_exist(dialler: Dialler, target: Target) -> None:
    with pytest.raises(SshUnreachableError):
        await dialler.dial(replace(target, host="no-such-machine.invalid"))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-mute\r\n"])
async def test_something_else_or_nothing_answers_there(dialler: Dialler, target: Target, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def accept() -> None:
            connection, _ = listener.accept()
            taken.append(connection)
            connection.sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        impatient = replace(dialler, login_s=0.5, connect_s=0.5)
        with anyio.fail_after(10), pytest.raises(SshUnreachableError):
            await impatient.dial(replace(target, port=listener.getsockname()[1]))
        thread.join(5)
        for connection in taken:
            connection.close()


async def test_a_machine_that_answers_late_is_tried_again(dialler: Dialler, target: Target, server: Sshd) -> None:
    server.stop()
    patient = replace(dialler, tries=50)
    async with anyio.create_task_group() as group:
        group.start_soon(_says_hello, patient, target)
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(server.start)


async def test_keys_that_are_not_let_in_are_named(
    dialler: Dialler, target: Target, server: Sshd, tmp_path: Path
) -> None:
    make_key(tmp_path / "other", "somebody else")
    server.authorise(tmp_path / "other.pub")

    with pytest.raises(SshAuthFailedError) as refused:
        await dialler.dial(target)

    assert "me@blep (ssh-ed25519)" in refused.value.message
    assert "no agent" in refused.value.message
    assert refused.value.details["keys_tried"] == ["me@blep (ssh-ed25519)"]
    assert f"ssh-copy-id -p {target.port} root@127.0.0.1" in refused.value.hint


async def test_a_key_with_a_passphrase_is_said(dialler: Dialler, target: Target, tmp_path: Path) -> None:
    make_key(tmp_path / "locked", "locked", passphrase="hunter2-hunter2")
    with pytest.raises(SshAuthFailedError, match="passphrase") as refused:
        await dialler.dial(replace(target, key=str(tmp_path / "locked")))
    assert "ssh-add" in refused.value.hint


@pytest.mark.parametrize("content", [None, "", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
async def test_a_key_that_cannot_be_read_is_said(
    dialler: Dialler, target: Target, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(SshAuthFailedError, match="key"):
        await dialler.dial(replace(target, key=str(tmp_path / "key")))


async def test_a_configuration_that_cannot_be_used_is_said(dialler: Dialler, target: Target) -> None:
    dialler.config.write_text("Host mac\n  Port many\n")
    with pytest.raises(InvalidRequestError, match="config"):
        await dialler.dial(replace(target, host="mac", port=None))


async def test_what_the_configuration_says_of_a_name_counts(dialler: Dialler, server: Sshd) -> None:
    lines = [
        "Host mac", "HostName 127.0.0.1", f"Port {server.port}", f"IdentityFile {server.key}", "User root",
        "RemoteCommand echo wrong", "RequestTTY force",
    ]  # fmt: skip
    dialler.config.write_text("\n".join(lines))
    await _says_hello(dialler, Target("mac", "mac"))


async def test_nothing_of_this_machine_goes_along_whatever_the_configuration_says(
    dialler: Dialler, target: Target, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    await anyio.to_thread.run_sync(server.stop)
    await anyio.to_thread.run_sync(server.start, "AcceptEnv *", "AllowAgentForwarding yes", "X11Forwarding yes")
    dialler.config.write_text("ForwardAgent yes\nForwardX11Trusted yes\nSendEnv RBEE_*\n")
    monkeypatch.setenv("RBEE_SECRET", "hunter2")
    monkeypatch.setenv("DISPLAY", "127.0.0.1:7")
    with socket.socket(socket.AF_UNIX) as agent, tempfile.TemporaryDirectory(prefix="agent-") as directory:
        agent.bind(f"{directory}/s")  # a socket's path must be short
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{directory}/s")
        async with connected(dialler, target) as connection:
            finished = await connection.run('echo "$SSH_AUTH_SOCK$RBEE_SECRET$DISPLAY"', timeout_s=10)
    assert finished.stdout == b"\n"


@pytest.mark.parametrize(
    "line",
    [
        "HostName 127.0.0.1\n  Port 99999",
        "HostName 127.0.0.1\n  Port -4",
        "HostName a..b",
        f"HostName {'x' * 70}.com",
        "ProxyCommand /no/such/program",
    ],
)
async def test_an_address_that_cannot_be_is_said(dialler: Dialler, target: Target, line: str) -> None:
    dialler.config.write_text(f"Host mac\n  {line}\n")
    with pytest.raises(SshUnreachableError, match="mac"):
        await dialler.dial(replace(target, host="mac", port=None))


# host keys


async def test_an_unknown_host_key_is_shown_and_nothing_is_offered(
    dialler: Dialler, target: Target, server: Sshd
) -> None:
    (server.ssh / "known_hosts").unlink()

    with pytest.raises(SshHostKeyUnknownError) as refused:
        await dialler.dial(target)

    assert refused.value.details == {
        "host": "127.0.0.1", "port": server.port, "key_type": "ssh-ed25519", "fingerprint": server.fingerprint,
    }  # fmt: skip
    assert "rbee-keeper node add mac" in refused.value.hint
    assert "publickey" not in (server.directory / "log").read_text()


@pytest.mark.parametrize("key_type", ["ed25519", "ecdsa", "rsa"])
async def test_a_changed_host_key_is_refused_with_both_shown(
    dialler: Dialler, target: Target, server: Sshd, key_type: str
) -> None:
    before = server.fingerprint
    server.stop()
    server.new_host_key(key_type)
    server.start()

    with pytest.raises(SshHostKeyChangedError) as refused:
        await dialler.dial(target)

    assert refused.value.details["known_fingerprint"] == before
    if key_type == "ed25519":
        assert refused.value.details["fingerprint"] == server.fingerprint
    assert "rbee-keeper node trust mac" in refused.value.hint


async def test_what_was_confirmed_here_goes_before_what_openssh_knows(
    dialler: Dialler, target: Target, server: Sshd
) -> None:
    server.stop()
    server.new_host_key()
    server.start()
    shown = await dialler.presented_key(target)
    assert (shown.key.fingerprint, shown.port) == (server.fingerprint, server.port)

    await anyio.to_thread.run_sync(dialler.host_keys.accept, shown.host, shown.port, shown.key)
    await _says_hello(dialler, target)
    assert dialler.host_keys.ours.stat().st_mode & 0o777 == 0o600

    await anyio.to_thread.run_sync(dialler.host_keys.forget, shown.host, shown.port)
    with pytest.raises(SshHostKeyChangedError):
        await dialler.dial(target)


async def test_a_damaged_line_of_known_hosts_spoils_no_other(dialler: Dialler, target: Target, server: Sshd) -> None:
    good = (server.ssh / "known_hosts").read_text()
    (server.ssh / "known_hosts").write_bytes(
        b"\xff\xfe\n|1|x|y ssh-ed25519 AAAA\n@what is this\nhost\n" + good.encode()
    )
    await _says_hello(dialler, target)


async def test_a_revoked_key_is_refused_even_if_it_was_confirmed(
    dialler: Dialler, target: Target, server: Sshd
) -> None:
    known = server.ssh / "known_hosts"
    known.write_text(known.read_text() + f"@revoked {known.read_text()}")
    with pytest.raises(SshHostKeyChangedError, match="revoked"):
        await dialler.dial(target)


def test_accepting_replaces_and_keeps_the_others(tmp_path: Path, server: Sshd) -> None:
    keys = HostKeys(tmp_path / "ours", tmp_path / "theirs")
    (tmp_path / "ours").write_text("other ssh-ed25519 AAAA\n[127.0.0.1]:1 ssh-ed25519 BBBB\n127.0.0.1 ssh-ed25519 C\n")
    from queen_rbee.ssh.host_keys import HostKey  # noqa: PLC0415

    keys.accept("127.0.0.1", 1, HostKey("ssh-ed25519", "SHA256:x", "ssh-ed25519 NEW"))
    lines = (tmp_path / "ours").read_text().splitlines()
    assert lines == ["other ssh-ed25519 AAAA", "127.0.0.1 ssh-ed25519 C", "[127.0.0.1]:1 ssh-ed25519 NEW"]
    keys.forget("127.0.0.1", 22)
    assert (tmp_path / "ours").read_text().splitlines() == ["other ssh-ed25519 AAAA", "[127.0.0.1]:1 ssh-ed25519 NEW"]
