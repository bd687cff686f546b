"""What `ProxyJump` may say, and whom it names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.ssh.jumps import blocked, hops
from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError, RbeeError, SshAuthFailedError, SshHostKeyUnknownError

_NAMES = st.text("abcxyz019-.", min_size=1, max_size=12)
_HOSTS = _NAMES | st.sampled_from(["10.0.0.3", "fe80::1%eth0", "::1"])
_TARGETS = st.builds(
    lambda host, port, user: Target(host, host, port, user),
    _HOSTS,
    st.none() | st.integers(1, 65_535),
    st.none() | st.text("abc@.-_", min_size=1, max_size=8),
)


def _written(target: Target, *, as_uri: bool) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{'ssh://' if as_uri else ''}{Target(target.node, host, target.port, target.user)}"


@given(st.lists(_TARGETS, min_size=1, max_size=4), st.booleans())
def test_what_is_written_is_read(targets: list[Target], as_uri: bool) -> None:
    assert hops(",".join(_written(target, as_uri=as_uri) for target in targets)) == tuple(targets)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a,",
        "a,,b",
        "@a",
        "a:",
        "a:0",
        "a:65536",
        "a:x",
        "a:\u0663",
        "a:" + "9" * 5000,
        "fe80::1",
        "[a",
        "a b@",
    ],
)
def test_what_names_no_machine_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ProxyJump"):
        hops(text)


@given(st.text(max_size=20))
def test_anything_else_is_read_or_refused(text: str) -> None:
    try:
        found = hops(text)
    except ValueError:
        return
    assert all(hop.host and (hop.port is None or 0 < hop.port <= 65_535) for hop in found)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SshHostKeyUnknownError("who is that", details={"fingerprint": "SHA256:x"}), "SSH_UNREACHABLE"),
        (SshAuthFailedError("not in"), "SSH_AUTH_FAILED"),
        (InvalidRequestError("what"), "INVALID_REQUEST"),
    ],
)
def test_nobody_is_asked_to_confirm_the_key_of_a_machine_on_the_way_as_the_nodes(error: RbeeError, code: str) -> None:
    told = blocked("mac", Target("bastion", "bastion", 2222, "rita"), error)
    assert (told.code, told.details) == (code, {})
    assert told.message == f"the way to mac leads through rita@bastion:2222: {error.message}"
    assert "ssh bastion true" in told.hint
