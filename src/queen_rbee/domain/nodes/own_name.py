"""Which names can mean the queen's own machine, by her host name alone; where one leads is for others to find out."""

import ipaddress

from queen_rbee.domain.nodes.node import LOCAL_NODE


def is_own(wanted: str, hostname: str) -> bool:
    """Whether `wanted` is her machine's name: `localhost`, the host name, or the host name without its domain."""
    own = hostname.lower()
    return wanted.lower() in {LOCAL_NODE, own, _first_label(own)}


def could_be_own(wanted: str, hostname: str) -> bool:
    """Whether `wanted` is her machine's if it leads there: an address, or the host name in some domain.

    `blep.home.arpa` is another machine than `blep.example`, and both may exist: the first label settles nothing.
    """
    return _is_address(wanted) or _first_label(wanted.lower()) == _first_label(hostname.lower())


def _first_label(name: str) -> str:
    return name.partition(".")[0]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
