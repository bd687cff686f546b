"""The network between the hosts of a lab: one switch, a cable to each, and the ways in which they fail.

The switch is a bridge on the network of the lab itself, which leads nowhere else: there is no route to the outside.
"""

from dataclasses import dataclass, field

from tests.support.lab_namespaces import Namespaces

SWITCH_ADDRESS = "10.77.0.1"
_BRIDGE = "switch"
_PREFIX_BITS = 24


@dataclass
class Network:
    """Cables are called by the names of their hosts."""

    lab: Namespaces
    _plugged: dict[str, tuple[str, Namespaces]] = field(default_factory=dict)
    _deaf: set[tuple[str, str]] = field(default_factory=set)

    def start(self) -> None:
        commands = [f"link add {_BRIDGE} type bridge", f"address add {SWITCH_ADDRESS}/{_PREFIX_BITS} dev {_BRIDGE}"]
        self._ip(self.lab, *commands, f"link set {_BRIDGE} up", "link set lo up")

    def plug_in(self, name: str, address: str, spaces: Namespaces) -> None:
        """Lay a cable to a host whose network is new."""
        # the same card after a reboot: with another one the others would look for the old for half a minute
        card = ":".join(["02", "00", *(f"{int(part):02x}" for part in address.split("."))])
        self._ip(
            self.lab,
            f"link add {name} type veth peer name eth0 address {card} netns {spaces.pid}",
            f"link set {name} master {_BRIDGE} up",
        )
        self._ip(spaces, "link set lo up", f"address add {address}/{_PREFIX_BITS} dev eth0", "link set eth0 up")
        self._plugged[name] = (address, spaces)

    def unplug(self, name: str) -> None:
        """Take the cable away, and with it every one-way cut that the host had part in."""
        self._ip(self.lab, f"link delete {name}")
        self._let_through(name)
        del self._plugged[name]

    def cut(self, name: str) -> None:
        """Nothing gets through in either direction."""
        self._ip(self.lab, f"link set {name} down")

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends to `target` is lost on the way; the other direction works."""
        if (source, target) not in self._deaf:
            self._drop("--append", source, target)
            self._deaf.add((source, target))

    def heal(self, name: str) -> None:
        """Undo every cut that the host has part in."""
        self._ip(self.lab, f"link set {name} up")
        self._let_through(name)

    def reset(self, name: str, other: str) -> int:
        """Abort, with a reset, every TCP connection that `name` has with `other`; how many there were."""
        (_, spaces), (address, _) = self._plugged[name], self._plugged[other]
        return len(spaces.tool("ss", "--no-header", "--tcp", "--kill", "dst", address).splitlines())

    def _let_through(self, name: str) -> None:
        for source, target in [pair for pair in self._deaf if name in pair]:
            self._drop("--delete", source, target)
            self._deaf.discard((source, target))

    def _drop(self, order: str, source: str, target: str) -> None:
        # before the kernel of the target looks at it: the source is told nothing, as it would be on a real wire
        (address, _), (_, spaces) = self._plugged[source], self._plugged[target]
        rule = ("--source", address, "--jump", "DROP")
        spaces.tool("iptables", "--wait", "--table", "raw", order, "PREROUTING", *rule)

    @staticmethod
    def _ip(spaces: Namespaces, *commands: str) -> None:
        spaces.tool("ip", "-batch", "-", text="".join(f"{command}\n" for command in commands))
