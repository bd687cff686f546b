"""Under which address a hive announces itself to a queen that may be on another machine."""

import socket
from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from rbee_hive.own_address import OwnAddress
from rbee_shared.server import bind


@contextmanager
def bound(host: str) -> Generator[OwnAddress]:
    with closing(bind(host, 0)) as listener:
        yield OwnAddress.of(listener)


def own_address() -> str:
    """Of this machine, as others see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("needs a route to another machine")
        return str(route.getsockname()[0])


def test_a_hive_of_one_address_has_one_url_whoever_asks() -> None:
    with bound("127.0.0.1") as address:
        assert not address.is_everywhere
        assert address.url_for("http://192.0.2.1:8080") == address.url == f"http://127.0.0.1:{address.port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_hive_on_every_address_names_the_one_that_leads_to_its_queen(host: str) -> None:
    if host == "::" and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    own = own_address()
    with bound(host) as address:
        assert address.is_everywhere
        assert address.url_for("http://192.0.2.1:8080") == f"http://{own}:{address.port}"
        assert address.url_for("http://127.0.0.1:8080") == f"http://127.0.0.1:{address.port}"
        assert address.url_for("http://localhost").startswith(("http://127.0.0.1:", "http://[::1]:"))


def test_a_hive_on_every_address_names_one_that_can_be_reached(anyio_backend: str) -> None:
    own = own_address()
    with bound("0.0.0.0") as address:
        url = address.url_for("http://192.0.2.1:8080")
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            assert connection.getpeername() == (own, address.port)


@pytest.mark.parametrize(
    "peer",
    ["", "http://", "http://no-such-host.invalid:1", "http://[::1", "http://h:99999999", "http://[2001:db8::1]:1"],
)
def test_a_peer_that_cannot_be_found_gets_the_url_of_this_machine(peer: str) -> None:
    with bound("0.0.0.0") as address:
        assert address.url_for(peer) == address.url
