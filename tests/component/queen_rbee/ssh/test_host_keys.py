"""Machines with several host keys, with certificates, and files that many write: nobody is told a false alarm."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import asyncssh
import pytest
from tests.support.sshd import Sshd, make_key
from typing_extensions import override

from queen_rbee.ssh.connection import connected
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.host_keys import HostKey, HostKeys
from queen_rbee.ssh.target import Target
from rbee_shared import file_lock
from rbee_shared.errors import (
    RequestTimeoutError,
    SshHostKeyChangedError,
    SshHostKeyUnknownError,
    SshUnreachableError,
)


async def _logs_in(dialler: Dialler, target: Target) -> None:
    async with connected(dialler, target):
        pass


# several keys


@pytest.fixture
def kinds(server: Sshd, tmp_path: Path) -> dict[str, Path]:
    """The public keys of a server that has one of each kind; of itself it shows the ed25519 one. None is known."""
    found = {"ed25519": server.host_key}
    for kind in ("ecdsa", "rsa"):
        found[kind] = tmp_path / f"host_{kind}"
        make_key(found[kind], "host", kind)
    server.stop()
    server.start(*(f"HostKey {key}" for kind, key in found.items() if kind != "ed25519"))
    (server.ssh / "known_hosts").unlink()
    return {kind: key.with_suffix(".pub") for kind, key in found.items()}


def _know(server: Sshd, *keys: Path, marker: str = "", host: str = "") -> None:
    host = host or f"[127.0.0.1]:{server.port}"
    with (server.ssh / "known_hosts").open("a") as file:
        file.writelines(f"{marker}{host} {' '.join(key.read_text().split()[:2])}\n" for key in keys)


def _fingerprint(key: Path) -> str:
    said = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


@pytest.mark.parametrize("known", ["ed25519", "ecdsa", "rsa"])
async def test_whichever_key_is_known_is_the_one_that_is_asked_for(
    dialler: Dialler, target: Target, server: Sshd, kinds: dict[str, Path], known: str
) -> None:
    _know(server, kinds[known])
    shown = await dialler.presented_key(target)
    fingerprint = _fingerprint(kinds[known])
    assert (shown.key.fingerprint, shown.known, shown.is_changed) == (fingerprint, (fingerprint,), False)
    await _logs_in(dialler, target)


@pytest.mark.parametrize("named", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("known", [None, "ecdsa"])
async def test_every_key_that_a_machine_has_can_be_named(
    dialler: Dialler, target: Target, server: Sshd, kinds: dict[str, Path], named: str, known: str | None
) -> None:
    if known:
        _know(server, kinds[known])
    shown = await dialler.presented_key(target, _fingerprint(kinds[named]))
    assert (shown.key.fingerprint, shown.is_changed) == (_fingerprint(kinds[named]), False)


async def test_a_key_that_a_machine_does_not_have_is_not_found(
    dialler: Dialler, target: Target, server: Sshd, kinds: dict[str, Path]
) -> None:
    shown = await dialler.presented_key(target, "SHA256:somebody-elses")
    assert shown.key.fingerprint == _fingerprint(kinds["ed25519"])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_another_key_of_the_known_kind_is_a_change_whatever_else_it_has(
    dialler: Dialler, target: Target, server: Sshd, kinds: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    make_key(tmp_path / "before", "host", kind)
    before = (tmp_path / "before").with_suffix(".pub")
    _know(server, before)
    assert (await dialler.presented_key(target, _fingerprint(kinds["ed25519"]))).is_changed
    with pytest.raises(SshHostKeyChangedError) as refused:
        await dialler.dial(target)
    assert refused.value.details["fingerprint"] == _fingerprint(kinds[kind])
    assert refused.value.details["known_fingerprint"] == _fingerprint(before)


class _SlowToLetIn(asyncssh.SSHServer):
    @override
    def begin_auth(self, username: str) -> bool:
        return True

    @override
    def public_key_auth_supported(self) -> bool:
        return True

    @override
    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        await anyio.sleep(60)
        return True


@asynccontextmanager
async def _slow_machine(*keys: asyncssh.SSHKey | asyncssh.SSHKeyPair) -> AsyncGenerator[int]:
    listener = await asyncssh.listen("127.0.0.1", 0, server_host_keys=list(keys), server_factory=_SlowToLetIn)
    async with listener:
        yield listener.get_port()


async def test_a_slow_login_is_no_change_of_the_key(dialler: Dialler, target: Target, server: Sshd) -> None:
    ed25519 = asyncssh.generate_private_key("ssh-ed25519")
    ecdsa = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with _slow_machine(ed25519, ecdsa) as port:
        line = ecdsa.export_public_key().decode()
        (server.ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {line}")
        with anyio.fail_after(20), pytest.raises(SshUnreachableError, match="nobody answers"):
            await replace(dialler, login_s=1.5).dial(replace(target, port=port))


async def test_a_machine_that_shows_one_key_whatever_it_is_asked_for_is_not_asked_for_ever(
    dialler: Dialler, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair,) = asyncssh.load_keypairs(asyncssh.generate_private_key("ssh-ed25519"))
    pair.host_key_algorithms = [b"ssh-ed25519", b"rsa-sha2-256", b"ecdsa-sha2-nistp256"]
    monkeypatch.setattr(pair, "sign", lambda _: b"never looked at")
    async with _slow_machine(pair) as port:
        with anyio.fail_after(20):
            shown = await dialler.presented_key(replace(target, port=port), "SHA256:another")
    assert shown.key.key_type == "ssh-ed25519"


# certificates


@pytest.fixture
def certify(server: Sshd, tmp_path: Path) -> Callable[..., Path]:
    """Have the server show a certificate in the place of its key; the public key of its authority."""
    make_key(tmp_path / "authority", "authority")

    def restart(*options: str) -> Path:
        sign = ["ssh-keygen", "-q", "-s", str(tmp_path / "authority"), "-I", "mac", "-h", *options]
        subprocess.run([*sign, str(server.host_key.with_suffix(".pub"))], check=True, stderr=subprocess.DEVNULL)
        server.stop()
        server.start(f"HostCertificate {server.host_key}-cert.pub")
        (server.ssh / "known_hosts").unlink()
        return tmp_path / "authority.pub"

    return restart


async def _is_confirmed(dialler: Dialler, target: Target, server: Sshd) -> None:
    with pytest.raises(SshHostKeyUnknownError) as refused:
        await dialler.dial(target)
    assert refused.value.details["fingerprint"] == server.fingerprint

    shown = await dialler.presented_key(target, server.fingerprint)
    assert (shown.key.fingerprint, shown.is_changed) == (server.fingerprint, False)
    await anyio.to_thread.run_sync(dialler.host_keys.accept, shown.host, shown.port, shown.key)
    await _logs_in(dialler, target)


async def test_a_machine_with_a_certificate_is_confirmed_by_its_key(
    dialler: Dialler, target: Target, server: Sshd, certify: Callable[..., Path]
) -> None:
    await anyio.to_thread.run_sync(certify)
    await _is_confirmed(dialler, target, server)


async def test_a_certificate_of_a_trusted_authority_is_enough(
    dialler: Dialler, target: Target, server: Sshd, certify: Callable[..., Path]
) -> None:
    _know(server, await anyio.to_thread.run_sync(certify), marker="@cert-authority ", host="*")
    await _logs_in(dialler, target)


@pytest.mark.parametrize("certified", [False, True])
async def test_where_another_authority_is_trusted_the_key_counts(
    dialler: Dialler, target: Target, server: Sshd, certify: Callable[..., Path], tmp_path: Path, certified: bool
) -> None:
    if certified:
        await anyio.to_thread.run_sync(certify)
    else:
        (server.ssh / "known_hosts").unlink()
    make_key(tmp_path / "company", "another authority")
    _know(server, (tmp_path / "company").with_suffix(".pub"), marker="@cert-authority ", host="*")
    await _is_confirmed(dialler, target, server)

    dialler.host_keys.ours.unlink()
    _know(server, server.host_key.with_suffix(".pub"))
    await _logs_in(dialler, target)


async def test_a_certificate_that_is_over_is_refused_with_the_reason(
    dialler: Dialler, target: Target, server: Sshd, certify: Callable[..., Path]
) -> None:
    authority = await anyio.to_thread.run_sync(certify, "-V", "20200101:20200102")
    _know(server, authority, marker="@cert-authority ", host="*")
    with pytest.raises(SshHostKeyChangedError, match="expired"):
        await dialler.dial(target)


# the file

_KEY = HostKey("ssh-ed25519", "SHA256:x", "ssh-ed25519 NEW")
_WRITER = """
import sys
from pathlib import Path
from queen_rbee.ssh.host_keys import HostKey, HostKeys
keys = HostKeys(Path(sys.argv[1]), Path("/nowhere"))
sys.stdin.readline()
for number in range(40):
    keys.accept(f"{sys.argv[2]}-{number}", 22, HostKey("ssh-ed25519", "SHA256:x", "ssh-ed25519 NEW"))
"""


def test_programs_that_write_at_once_lose_no_key(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    argv = [sys.executable, "-c", _WRITER, str(file)]
    writers = [subprocess.Popen([*argv, name], stdin=subprocess.PIPE) for name in ("queen", "other", "third")]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]

    names = {line.split()[0] for line in file.read_text().splitlines()}
    assert names == {f"{name}-{number}" for name in ("queen", "other", "third") for number in range(40)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known_hosts", "known_hosts.lock"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_lines_that_are_not_understood_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_bytes(b"# \xe9t\xc3\xa9\nother ssh-ed25519 AAAA caf\xe9\n")
    HostKeys(file, tmp_path / "theirs").accept("mac", 22, _KEY)
    assert file.read_bytes() == b"# \xe9t\xc3\xa9\nother ssh-ed25519 AAAA caf\xe9\nmac ssh-ed25519 NEW\n"


def test_a_lock_that_is_never_released_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "_WAIT_S", 0.1)
    keys = HostKeys(tmp_path / "known_hosts", tmp_path / "theirs")
    with file_lock.locked(tmp_path / "known_hosts.lock"), pytest.raises(RequestTimeoutError, match="locked"):
        keys.accept("mac", 22, _KEY)
    keys.accept("mac", 22, _KEY)


def test_what_cannot_be_written_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").mkdir()
    with pytest.raises(OSError, match="known_hosts"):
        HostKeys(tmp_path / "known_hosts", tmp_path / "theirs").accept("mac", 22, _KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known_hosts", "known_hosts.lock"]
