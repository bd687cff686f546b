"""What people see of nodes: the queen's views of them in, text out. Pure: the time comes in."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbee_keeper.columns import columns
from rbee_keeper.tables import device_lines
from rbee_shared.contracts.nodes import NodeState, NodeView
from rbee_shared.redaction import printable_line
from rbee_shared.tables import facts
from rbee_shared.units import format_bytes, format_seconds

_HOUR_S, _DAY_S = 3600, 86_400
_LOCAL = "local"
_BYTES = "_bytes"
_MOST_BYTES = 2**63


@dataclass(frozen=True)
class NodeTexts:
    """`now_ms` is UNIX time: what happened is told by how long ago it was."""

    now_ms: int

    def table(self, nodes: Sequence[NodeView]) -> str:
        """A line for each node, and below what went wrong the last time."""
        header = ("NODE", "STATE", "WHERE", "BY", "VERSION", "SEEN", "DEVICES")
        rows = [
            (
                node.name, state_of(node), where(node), node.transport, node.version or "-",
                self.ago(node.last_seen_ms), ", ".join(_device_ids(node)) or "-",
            )
            for node in nodes
        ]  # fmt: skip
        faults = [line for node in nodes for line in self.fault(node)]
        return "\n".join([*columns(header, rows, "no nodes yet"), *faults])

    def node(self, node: NodeView, width: int) -> str:
        """All that she knows of one."""
        pairs: list[tuple[str, object]] = [
            ("node", node.name),
            ("state", state_of(node)),
            ("where", where(node)),
            ("transport", node.transport),
            ("key", node.key),
            ("home", node.home),
            ("installs", None if node.install else "not by itself"),
            ("hive", node.url),
            ("version", node.version),
            ("seen", self.ago(node.last_seen_ms)),
            ("workers", node.workers),
            *(("device", line) for line in _device_lines(node)),
        ]
        return "\n".join([facts(pairs, width=width), *self.fault(node)])

    def asleep(self, node: NodeView) -> str:
        """That no hive runs there, and what would change it."""
        told = f"{node.name} is {state_of(node)} (seen: {self.ago(node.last_seen_ms)})"
        next_step = f"its hive is woken by `rbee-keeper node start {node.name}`"
        return "\n".join([printable_line(f"{told}; {next_step}"), *self.fault(node)])

    def fault(self, node: NodeView) -> list[str]:
        """Why it could not be used the last time, and the next step."""
        fault = node.last_error
        if fault is None:
            return []
        about = "" if fault.message.startswith(node.name) else f"{node.name}: "
        told = f"{about}{fault.message} ({fault.code}, {self.ago(fault.at_ms)})"
        return [printable_line(told), f"  next: {printable_line(fault.hint)}"]

    def ago(self, at_ms: int | None) -> str:
        """`12 s ago`, `3 h ago`, `never`; a clock that is ahead of ours says `now`."""
        if at_ms is None:
            return "never"
        passed_s = (self.now_ms - at_ms) / 1000
        if passed_s < 1:
            return "now"
        if passed_s >= _DAY_S:
            return f"{passed_s / _DAY_S:.0f} d ago"
        return f"{passed_s / _HOUR_S:.0f} h ago" if passed_s >= _HOUR_S else f"{format_seconds(passed_s)} ago"


def is_asleep(node: NodeView) -> bool:
    """Whether no hive runs there that the queen knows of."""
    return node.state in {NodeState.UNKNOWN, NodeState.OFFLINE}


def failed_last(node: NodeView) -> bool:
    """Whether it could not be used since it was seen."""
    return node.last_error is not None and node.last_error.at_ms >= (node.last_seen_ms or 0)


def state_of(node: NodeView) -> str:
    """`asleep` is a machine whose hive nobody has woken; `offline` one that failed since it was seen."""
    state = node.state.value
    if is_asleep(node):
        state = NodeState.OFFLINE.value if failed_last(node) else "asleep"
    return f"{state}, drained" if node.drained else state


def where(node: NodeView) -> str:
    """`rita@mac.home.arpa:2222`, as far as it is known."""
    if node.transport == _LOCAL:
        return "this machine"
    user = f"{node.user}@" if node.user else ""
    port = f":{node.port}" if node.port else ""
    return f"{user}{node.host or node.name}{port}"


def found(facts_found: Mapping[str, Any], width: int) -> str:
    """What an action found out, a fact on a line; empty where it says nothing."""
    return facts((pair for name, value in facts_found.items() for pair in _pairs(name, value)), width=width)


def _pairs(name: str, value: object) -> Iterable[tuple[str, object]]:
    """`size_bytes` is told scaled; what was found about each of several things, a line for each."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) and "said" in part for part in value):
        yield from ((_words(str(part.get("about", name))), _value(part["said"])) for part in value)
    elif name.endswith(_BYTES) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_BYTES:
        yield _words(name.removesuffix(_BYTES)), format_bytes(value)
    else:
        yield _words(name), _value(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(part, str | int) for part in value):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, Mapping | list) else "" if value is None else str(value)


def _device_lines(node: NodeView) -> list[str]:
    """What its hive tells; of one that sleeps what is remembered."""
    if node.devices is not None:
        return device_lines(node.devices)
    return [
        f"{known.id}: {known.name}, {format_bytes(known.memory_bytes)} when it was last up"
        for known in node.known_devices
    ]


def _device_ids(node: NodeView) -> Iterable[str]:
    if (devices := node.devices) is None:
        yield from sorted((known.id for known in node.known_devices), key=lambda known: (known == "cpu", known))
        return
    gpus = devices.get("gpus")
    yield from (str(gpu.get("id")) for gpu in (gpus if isinstance(gpus, list) else ()) if isinstance(gpu, Mapping))
    cpu = devices.get("cpu")
    if isinstance(cpu, Mapping) and cpu.get("offered", True):
        yield "cpu"
