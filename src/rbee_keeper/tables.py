"""The reading commands: facts of the cluster as small tables, or as one JSON document."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rbee_keeper import exit_codes
from rbee_keeper.columns import columns
from rbee_keeper.queen_finder import FoundQueen, find_queen
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.queen_api import QueenApi
from rbee_shared.redaction import printable_line
from rbee_shared.units import format_bytes

_ASLEEP = "queen is asleep (start a standing one with `rbee-keeper queen start`)"
_SECRETS = frozenset({"api_key"})


async def show_queen(settings: KeeperSettings, screen: Screen) -> int:
    """Her own `/health`."""
    found = await find_queen(settings)
    if found is None:
        return _asleep(screen)
    health = await QueenApi(found.url, clocks=settings.clocks).health()
    if screen.wants_json:
        screen.result(json.dumps({"queen": {"url": found.url, **health}}))
        return exit_codes.DONE
    screen.result(_queen_line(found, health))
    return exit_codes.DONE


async def show_cluster(settings: KeeperSettings, screen: Screen) -> int:
    """The queen, nodes, devices and workers."""
    found = await find_queen(settings)
    if found is None:
        return _asleep(screen)
    api = found.steering_api(settings)
    health, nodes, workers = await api.health(), await api.nodes(), await api.workers()
    if screen.wants_json:
        document = {"queen": {"url": found.url, **health}, "nodes": nodes, "workers": [_public(w) for w in workers]}
        screen.result(json.dumps(document))
        return exit_codes.DONE
    screen.result(_queen_line(found, health))
    screen.result(node_table(nodes))
    header = ("WORKER", "STATE", "MODEL", "ON", "SLOTS FREE")
    screen.result("\n".join(columns(header, map(_worker_row, workers), "no workers")))
    return exit_codes.DONE


def node_table(nodes: Iterable[Mapping[str, Any]]) -> str:
    """A line for each device, so that a node with eight of them still fits a screen; below it what is wrong."""
    rows: list[Sequence[object]] = []
    problems: list[str] = []
    for node in nodes:
        rows += _node_rows(node)
        problems += _problems(node)
    return "\n".join([*columns(("NODE", "STATE", "DEVICES", "WORKERS"), rows, "no nodes yet"), *problems])


def _asleep(screen: Screen) -> int:
    screen.result(json.dumps({"queen": None}) if screen.wants_json else _ASLEEP)
    return exit_codes.UNREACHABLE


def _queen_line(found: FoundQueen, health: Mapping[str, Any]) -> str:
    kind = "ephemeral" if found.ephemeral else "standing"
    process = f", pid {found.process.pid}" if found.process else ""
    queued = health.get("queue_depth", 0)
    state = str(health.get("status", "?")).replace("_", " ")
    return f"queen {state} at {found.url} ({kind}, version {found.version}{process}), {queued} waiting"


def _state(node: Mapping[str, Any]) -> object:
    """A node without a hive that nothing is known against is only asleep."""
    return "asleep" if node.get("state") == "offline" and not node.get("last_error") else node.get("state")


def _node_rows(node: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    """What is the node's own stands on the line of its first device."""
    first, *others = device_lines(node.get("devices")) or ["-"]
    yield node.get("name"), _state(node), first, node.get("workers", 0)
    for device in others:
        yield "", "", device, ""


def device_lines(devices: object) -> list[str]:
    """A line for each device of a node, as the queen tells of them."""
    if not isinstance(devices, Mapping):
        return []
    lines = []
    if isinstance(cpu := devices.get("cpu"), Mapping):
        room = _room(cpu.get("free_bytes"), cpu.get("ram_bytes"))
        lines.append(f"cpu: {cpu.get('cores')} cores, {room}{'' if cpu.get('offered', True) else ', not offered'}")
    for gpu in devices.get("gpus") or ():
        room = _room(gpu.get("free_bytes"), gpu.get("vram_bytes"))
        declared = f", declared, computed on {gpu.get('build')}" if gpu.get("declared") else ""
        lines.append(f"{gpu.get('id')}: {gpu.get('name')}, {room}{declared}")
    return lines


def _problems(node: Mapping[str, Any]) -> list[str]:
    devices = node.get("devices")
    problems = (devices.get("problems") or ()) if isinstance(devices, Mapping) else ()
    return [printable_line(f"problem on {node.get('name')}: {problem}") for problem in problems]


def _room(free: object, total: object) -> str:
    if not (isinstance(free, int) and isinstance(total, int)):
        return "memory unknown"
    return f"{format_bytes(free)} of {format_bytes(total)} free"


def _worker_row(worker: Mapping[str, Any]) -> Sequence[object]:
    where = f"{worker.get('node_name')}, {worker.get('device')}"
    slots = f"{worker.get('slots_available', '?')} of {worker.get('slots_total', '?')}"
    return worker.get("id"), worker.get("state"), worker.get("model_ref"), where, slots


def _public(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in worker.items() if name not in _SECRETS}
