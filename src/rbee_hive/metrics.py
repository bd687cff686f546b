"""The hive's numbers for Prometheus, made at each scrape from its tally and from what is the case."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from rbee_hive.tally import Tally
from rbee_shared.contracts.workers import WorkerRecord, WorkerState


@dataclass(frozen=True)
class DeviceMemory:
    """In bytes."""

    device: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Now:
    """What is the case at a scrape."""

    workers: tuple[WorkerRecord, ...]
    crashes: Mapping[str, int]
    restarts: int
    devices: tuple[DeviceMemory, ...]
    models: int
    models_downloaded: int
    provisions: int
    disk_free_bytes: int


def render(tally: Tally, now: Now, *, accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type; `accept` is the scraper's header: OpenMetrics is for those that ask."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(tally, now))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Snapshot(Collector):
    def __init__(self, tally: Tally, now: Now) -> None:
        self._tally = tally
        self._now = now

    @override
    def collect(self) -> Iterable[Metric]:
        yield from self._counters()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter("download_bytes", "Bytes of models fetched over the network.", tally.download_bytes)
        yield _counters("downloads", "Models asked for and not at hand, by outcome.", "outcome", tally.downloads)
        yield _counters("builds", "Worker builds made or tried, by outcome.", "outcome", tally.builds)
        yield _counter("workers_started", "Worker processes started.", tally.workers_started)
        yield _counters("worker_crashes", "Workers that died unasked, by model.", "model", self._now.crashes)
        yield _counter("worker_restarts", "Processes started in the place of one that died.", self._now.restarts)

    def _gauges(self) -> Iterator[Metric]:
        now = self._now
        states = Counter({state.value: 0 for state in WorkerState})
        states.update(record.state.value for record in now.workers)
        yield _gauges("workers", "Workers by state; ended ones are kept for a while.", "state", states)
        totals = {device.device: device.total_bytes for device in now.devices}
        free = {device.device: device.free_bytes for device in now.devices}
        yield _gauges("device_memory_total_bytes", "Memory of a device.", "device", totals)
        yield _gauges("device_memory_free_bytes", "Memory of a device that is free.", "device", free)
        models = {"registered": now.models - now.models_downloaded, "downloaded": now.models_downloaded}
        yield _gauges("models", "Models in the catalog, by whether their files are here.", "state", models)
        yield _gauge("provisions", "Downloads and builds under way.", now.provisions)
        yield _gauge("models_disk_free_bytes", "Free space where models are kept.", now.disk_free_bytes)


def _name(name: str) -> str:
    return f"rbee_hive_{name}"


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(_name(name), text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(_name(name), text, labels=(label,))
    for key, value in sorted(values.items()):
        family.add_metric((key,), value)
    return family


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(_name(name), text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(_name(name), text, labels=(label,))
    for key, value in sorted(values.items()):
        family.add_metric((key,), value)
    return family
