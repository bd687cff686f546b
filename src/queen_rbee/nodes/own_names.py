"""Whether a name means this machine: by its host name, or because it leads to one of its own addresses.

A name service that does not answer in time says no.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import psutil

from queen_rbee.domain.nodes.own_name import could_be_own, is_own

_THREADS = 4


def _addresses_of(name: str) -> Iterable[str]:
    """Blocking; an `OSError` or `UnicodeError` for what is no name, or nobody's."""
    return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}


@dataclass(frozen=True)
class OwnNames:
    """`patience_s`: for the name service. Its threads are few, and none of those that everything else needs."""

    hostname: Callable[[], str] = socket.gethostname
    addresses_of: Callable[[str], Iterable[str]] = _addresses_of
    patience_s: float = 2.0
    _limit: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_THREADS), init=False)

    def include(self, wanted: str) -> bool:
        """Whether that is this machine's name, whatever a catalog says."""
        return is_own(wanted, self.hostname())

    async def lead_here(self, wanted: str) -> bool:
        """Whether that is an address of this machine, or its name in a domain where it has one."""
        if not could_be_own(wanted, self.hostname()):
            return False
        with anyio.move_on_after(self.patience_s):
            return await anyio.to_thread.run_sync(self._leads_here, wanted, abandon_on_cancel=True, limiter=self._limit)
        return False

    def _leads_here(self, wanted: str) -> bool:
        try:
            found = {ipaddress.ip_address(address) for address in self.addresses_of(wanted)}
        except (OSError, UnicodeError):
            return False
        return any(address.is_loopback for address in found) or not found.isdisjoint(_own_addresses())


def _own_addresses() -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for interface in psutil.net_if_addrs().values():
        for found in interface:
            if found.family in {socket.AF_INET, socket.AF_INET6}:
                yield ipaddress.ip_address(found.address)
