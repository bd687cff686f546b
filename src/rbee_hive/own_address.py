"""Where this hive listens, and under which address another machine finds it there."""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from rbee_shared.server import url_of

_EVERYWHERE = {"0.0.0.0": socket.AF_INET, "::": socket.AF_UNSPEC}  # noqa: S104 - compared, not bound; "::" takes both
_HTTP_PORT = 80


@dataclass(frozen=True)
class OwnAddress:
    """`url`: for programs of this machine. `host`: what was bound."""

    url: str
    host: str
    port: int

    @classmethod
    def of(cls, listener: socket.socket) -> "OwnAddress":
        host, port = listener.getsockname()[:2]
        return cls(url_of(listener), host, port)

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on every address of this machine, so that it depends on the peer which one is its own."""
        return self.host in _EVERYWHERE

    def url_for(self, peer_url: str) -> str:
        """The URL for the peer at `peer_url`: with the address that its packets would come from. Blocking: names.

        A datagram socket that is connected learns the route, and nothing is sent. Where none leads there it is `url`.
        """
        if not self.is_everywhere:
            return self.url
        try:
            peer = urlsplit(peer_url)
            found = socket.getaddrinfo(
                peer.hostname, peer.port or _HTTP_PORT, _EVERYWHERE[self.host], socket.SOCK_DGRAM
            )
        except (OSError, ValueError):
            return self.url
        for family, kind, protocol, _, address in found:
            try:
                with socket.socket(family, kind, protocol) as route:
                    route.connect(address)
                    own = route.getsockname()[0]
            except OSError:
                continue
            if "%" not in own:  # of one link only: its zone means nothing elsewhere
                return f"http://[{own}]:{self.port}" if ":" in own else f"http://{own}:{self.port}"
        return self.url
