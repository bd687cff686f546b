"""Three hosts `blep`, `workstation` and `mac` on a network of their own, each with OpenSSH's sshd; and a Hub for them.

`blep` has this checkout and its environment, the others have sshd and a Python. Needs root and Linux namespaces; the
machine's own network, mounts and files are not touched, and whatever ends this process ends the lab.
"""

import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.hub import Hub, running_hub
from tests.support.lab_disk import Disk, Owner, python_to_show
from tests.support.lab_host import Host
from tests.support.lab_machine import Machine
from tests.support.lab_namespaces import Namespaces, enclosed, tool
from tests.support.lab_network import SWITCH_ADDRESS, Network

NAMES = ("blep", "workstation", "mac")
TOOLS = (
    *("csh", "fish", "ip", "iptables", "nsenter", "pivot_root", "setpriv", "ss", "ssh"),
    *("ssh-keygen", "sshd", "unshare", "usermod"),
)
_DISKS = "dev/shm"  # a folder that every Linux has; the file system mounted over it is seen in the lab only
_SCAN_TIMEOUT_S = 5.0


@dataclass
class Lab:
    """All of it, running."""

    spaces: Namespaces
    network: Network
    hub: Hub
    hosts: tuple[Host, ...]

    @property
    def blep(self) -> Host:
        return self["blep"]

    @property
    def workstation(self) -> Host:
        return self["workstation"]

    @property
    def mac(self) -> Host:
        return self["mac"]

    def __getitem__(self, name: str) -> Host:
        return {host.name: host for host in self.hosts}[name]

    def renew(self) -> None:
        """Make every host new: nothing runs but sshd, disks and keys are fresh, all cables lie, the Hub is empty."""
        for host in self.hosts:
            host.power_off()
        self.hub.clear()
        addresses = {SWITCH_ADDRESS: "hub cdn", **{host.address: f"{host.name} {host.fqdn}" for host in self.hosts}}
        for host in self.hosts:
            host.disk.make(host.owner, addresses)
            host.sshd_options = {}
            host.power_on()

    # who lets whom in

    def authorise(self, source: Host, target: Host, *, user: str = "root", by: str = "root") -> None:
        """Let `by` of `source` log in as `user` on `target`, by key; that it knows the host key is not part of it."""
        target.authorise(source.public_key(by), user)

    def introduce(self, source: Host, *targets: Host, user: str = "root", by: str = "root") -> None:
        """Authorise `by` of `source` at each of `targets`, and have it know their host keys."""
        for target in targets:
            self.authorise(source, target, user=user, by=by)
            source.know(target, by)

    # the network

    def cut(self, host: Host) -> None:
        """Nothing gets through in either direction; the host runs on."""
        self.network.cut(host.name)

    def cut_one_way(self, source: Host, target: Host) -> None:
        """What `source` sends to `target` is lost; the other direction works."""
        self.network.cut_one_way(source.name, target.name)

    def heal(self, host: Host) -> None:
        """Undo every cut that the host has part in."""
        self.network.heal(host.name)

    def reset(self, host: Host, other: Host) -> int:
        """Abort, with a reset, every TCP connection between the two; how many there were."""
        return self.network.reset(host.name, other.name)

    def open_ports(self, source: Host, target: Host) -> set[int]:
        """Every TCP port of `target` that takes a connection from `source`: all 65,535 are tried, in seconds."""
        return source.spaces.on_network(lambda: {port for port in range(1, 65_536) if _answers(target.address, port)})


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(_SCAN_TIMEOUT_S)
        return probe.connect_ex((address, port)) == 0


def why_not_here() -> str | None:
    """The reason why this machine cannot have a lab; None when it can."""
    if sys.platform != "linux":
        return "needs Linux, whose namespaces are its hosts"
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"needs {', '.join(missing)}: scripts/test installs them"
    try:
        with enclosed() as spaces:
            spaces.tool("ip", "link", "add", "probe", "type", "veth")
            tool(*spaces.argv("mount"), "mount", "-t", "overlay", "-o", "lowerdir=/usr:/etc", "probe", f"/{_DISKS}")
    except (OSError, AssertionError) as error:
        return f"needs namespaces and overlays: {error}"
    return None


@contextmanager
def running_lab(names: Sequence[str] = NAMES, *, python: Path | None = None) -> Generator[Lab]:
    """The hosts of those names, new and running, until the block is left. Only `blep` has the checkout.

    `python`: the prefix of the interpreter that the hosts find as python3, where that is not to be the machine's.
    """
    python = python or python_to_show()
    with ExitStack() as stack:
        spaces = stack.enter_context(enclosed())
        disks = spaces.root / _DISKS
        tool(*spaces.argv("mount"), "mount", "-t", "tmpfs", "-o", "mode=755", "lab", f"/{_DISKS}")
        network = Network(spaces)
        network.start()
        (disks / "hub").mkdir()
        hub = spaces.on_network(
            lambda: stack.enter_context(running_hub(disks / "hub", address=SWITCH_ADDRESS, cdn_name="cdn"))
        )
        env = {"HF_ENDPOINT": hub.url}
        first = ipaddress.ip_address(SWITCH_ADDRESS) + 10
        hosts = tuple(
            Host(Owner(name, python, name == "blep"), str(first + number), Disk(disks / name), spaces, network, env)
            for number, name in enumerate(names)
        )
        for host in hosts:
            stack.callback(host.power_off)
        lab = Lab(spaces, network, hub, hosts)
        lab.renew()
        yield lab


__all__ = ["Host", "Lab", "Machine", "running_lab", "why_not_here"]
