"""The queen's view of every hive that is up: rebuilt from heartbeats."""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import anyio

from queen_rbee.domain.facts import DeviceFacts
from queen_rbee.domain.liveness import judge
from queen_rbee.hive_feed import HiveFeed
from queen_rbee.hive_process import HiveProcess
from queen_rbee.reach import Reach
from rbee_shared.contracts.nodes import Devices, GpuDevice, HiveHeartbeat, NodeState
from rbee_shared.units import format_bytes

_ENDED_REMEMBERED = 64


@dataclass
class HiveEntry:
    """One hive. `url` is where it answers from here, `own_url` what it calls itself; `epoch`: of this acquaintance.

    `models` is what it says it has, `model_names` every name of those that were asked about (`models_learnt`).
    `end` ends one that was found, beside HTTP; whether it is gone then.
    `process` is set when this queen started it, `feed` when she follows its event stream instead of its stdout.
    `to_stop`: she has told it to go, or tried to; `is_gone`: it was seen to have gone.
    """

    node: str
    url: str
    reach: Reach
    epoch: int
    process: HiveProcess | None = None
    own_url: str = ""
    end: Callable[[], Awaitable[bool]] | None = None
    hive_id: str | None = None
    feed: HiveFeed | None = None
    standalone: bool = False
    version: str | None = None
    devices: Devices | None = None
    models: tuple[str, ...] = ()
    models_learnt: tuple[str, ...] | None = None
    model_names: frozenset[str] = frozenset()
    to_stop: bool = False
    is_gone: bool = False
    free_bytes: dict[str, int] = field(default_factory=dict)
    last_seen_s: float = 0.0
    narrated: int = 0
    seq: int = 0
    state: NodeState = NodeState.STARTING
    heard: anyio.Event = field(default_factory=anyio.Event)
    forgotten: anyio.Event = field(default_factory=anyio.Event)

    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        """Wait until the hive's first `lines` lines have been heard here."""
        ears = self.feed or self.process
        if ears is not None:
            await ears.wait_heard(lines, timeout_s)

    def stop_hearing(self) -> None:
        """No longer follow its event stream."""
        if self.feed is not None:
            self.feed.close()
            self.feed = None


class HiveRegistry:
    """Hives by node name."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._hives: dict[str, HiveEntry] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_REMEMBERED)
        self._drained: set[str] = set()
        self._closed: Counter[str] = Counter()
        self._clock = clock

    def get(self, node: str) -> HiveEntry | None:
        return self._hives.get(node)

    def node_of(self, hive_id: str) -> str | None:
        """The node whose hive calls itself that."""
        return next((node for node, entry in self._hives.items() if entry.hive_id == hive_id), None)

    def all(self) -> list[HiveEntry]:
        return [self._hives[node] for node in sorted(self._hives)]

    def put(self, entry: HiveEntry) -> HiveEntry:
        """A hive is coming up, or has been found; its first heartbeat sets `heard`."""
        if (known := self._hives.get(entry.node)) is not None:
            known.stop_hearing()
        self._hives[entry.node] = entry
        return entry

    def heartbeat(self, entry: HiveEntry, beat: HiveHeartbeat) -> None:
        """Note what a hive says of itself; a word that a later one has overtaken says only that it is there."""
        entry.last_seen_s = self._clock()
        entry.hive_id = beat.hive_id
        if entry.devices is not None and entry.state is not NodeState.DRAINING:
            entry.state = NodeState.ONLINE
        if not 0 < beat.seq <= entry.seq:
            self._learn(entry, beat)
        entry.heard.set()

    def _learn(self, entry: HiveEntry, beat: HiveHeartbeat) -> None:
        if beat.url is not None:
            entry.version, entry.standalone = beat.version, beat.standalone
        entry.models = beat.models
        entry.free_bytes |= {device.id: device.free_bytes for device in beat.devices}
        entry.narrated = beat.narrated
        entry.seq = max(entry.seq, beat.seq)

    def learn_devices(self, entry: HiveEntry, devices: Devices) -> None:
        """The hive has said what it has: it can be given work."""
        entry.devices = devices
        if entry.state is not NodeState.DRAINING:
            entry.state = NodeState.ONLINE

    def remove(self, entry: HiveEntry) -> None:
        """Forget that hive, not one that has taken its place."""
        entry.stop_hearing()
        entry.forgotten.set()
        if self._hives.get(entry.node) is entry:
            del self._hives[entry.node]

    def note_end(self, hive_id: str | None) -> None:
        """That process has ended: a heartbeat of it that is still under way brings nothing to life."""
        if hive_id is not None:
            self._ended.append(hive_id)

    def has_ended(self, hive_id: str) -> bool:
        return hive_id in self._ended

    def age_s(self, entry: HiveEntry) -> float:
        """Seconds since its last word."""
        return self._clock() - entry.last_seen_s

    def judged(self, *, suspect_s: float, lost_s: float) -> list[tuple[HiveEntry, NodeState]]:
        """Every hive that has been heard of, with what the age of its last word means."""
        return [
            (entry, judge(self.age_s(entry), suspect_s=suspect_s, lost_s=lost_s))
            for entry in self._hives.values()
            if entry.heard.is_set()
        ]

    def drain(self, node: str, *, drained: bool) -> None:
        """Whether that node gets no new work, until further notice."""
        (self._drained.add if drained else self._drained.discard)(node)

    def is_drained(self, node: str) -> bool:
        return node in self._drained

    @contextmanager
    def closed(self, node: str) -> Generator[None]:
        """The node gets no new work for the length of the block."""
        self._closed[node] += 1
        try:
            yield
        finally:
            self._closed[node] -= 1

    def is_closed(self, node: str) -> bool:
        return self._closed[node] > 0

    def devices(self) -> tuple[DeviceFacts, ...]:
        """Every device of every hive that may be given work."""
        return tuple(facts for entry in self.all() if self._may_work(entry) for facts in device_facts(entry))

    def _may_work(self, entry: HiveEntry) -> bool:
        return entry.state is NodeState.ONLINE and not self.is_drained(entry.node) and not self.is_closed(entry.node)

    def silent(self) -> frozenset[str]:
        """Nodes whose tasks wait: they have missed some heartbeats and are not given up yet, or are closed."""
        suspected = {node for node, entry in self._hives.items() if entry.state is NodeState.SUSPECT}
        return frozenset(suspected | {node for node, blocks in self._closed.items() if blocks})


def device_facts(entry: HiveEntry) -> list[DeviceFacts]:
    """The devices of one hive as the scheduler sees them."""
    if entry.devices is None:
        return []
    cpu = entry.devices.cpu
    free = entry.free_bytes
    found = []
    if cpu.offered:
        found.append(DeviceFacts(entry.node, "cpu", "cpu", 0, cpu.name, cpu.ram_bytes, free.get("cpu", cpu.free_bytes)))
    for gpu in entry.devices.gpus:
        free_bytes = free.get(gpu.id, gpu.free_bytes)
        found.append(
            DeviceFacts(
                entry.node, gpu.id, gpu.backend, gpu.index, gpu.name, gpu.vram_bytes, free_bytes, build=gpu.build
            )
        )
    return found


def describe(devices: Devices) -> str:
    """`CPU 8 cores 32 GB, GPU0 RTX 3060 (12 GB), GPU1-GPU4 4 x A100 (40 GB); models 0, workers 0`, and any problems."""
    not_offered = "" if devices.cpu.offered else " (not offered)"
    parts = [f"CPU {devices.cpu.cores} cores {format_bytes(devices.cpu.ram_bytes)}{not_offered}"]
    parts += [_describe_alike(what, list(alike)) for what, alike in groupby(devices.gpus, _what_it_is)]
    problems = "".join(f"; problem: {problem}" for problem in devices.problems)
    return f"{', '.join(parts)}; models {devices.models}, workers {devices.workers}{problems}"


def _describe_alike(what: str, alike: list[GpuDevice]) -> str:
    first, last = alike[0].id.upper(), alike[-1].id.upper()
    return f"{first} {what}" if len(alike) == 1 else f"{first}-{last} {len(alike)} x {what}"


def _what_it_is(gpu: GpuDevice) -> str:
    """`RTX 3060 (12 GB)`, `M3 Max (36 GB, declared metal, computed on cpu)`."""
    size = format_bytes(gpu.vram_bytes)
    return f"{gpu.name} ({size}, {gpu.declaration})" if gpu.declaration else f"{gpu.name} ({size})"


def devices_as_dict(entry: HiveEntry) -> dict[str, Any] | None:
    return entry.devices.model_dump() if entry.devices else None
