"""What one worker has done and has, for Prometheus: counters and histograms fill as things happen, gauges at a scrape.

On the event loop only. Each `Metrics` has a registry of its own: two of them in one process share nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from rbee_shared.contracts.tasks import StopReason
from rbee_shared.contracts.workers import MemoryParts

_PREFIX = "rbee_worker"
# from a step of a tiny model to a long prompt on a slow processor
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is the case at a scrape, known to others. `memory` None: nothing is loaded."""

    slots: int
    slots_busy: int
    waiting: int
    kv_cells: int
    kv_cells_used: int
    engine_steps: int
    resident_memory_bytes: int
    memory: MemoryParts | None


class Metrics:
    """Told by name of what happened. `token_gap` takes seconds, once per token frame."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Answers begun.")
        self._refused = self._counter("requests_refused", "Requests refused because all slots were busy.")
        self._failed = self._counter("requests_failed", "Answers that ended with an error.")
        self._preemptions = self._counter("preemptions", "Answers set back because the KV cache was full.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of the answers begun.")
        self._cached_tokens = self._counter("cached_tokens", "Prompt tokens that the cache held already.")
        self._cache_hits = self._counter("cache_hits", "Answers that took a part of their prompt from the cache.")
        self._cache_misses = self._counter("cache_misses", "Answers whose whole prompt was computed.")
        self._tokens_out = self._counter("tokens_out", "Tokens generated.")
        self._decode_s = self._counter("decode_seconds", "Time spent generating, after the prompt.")
        self._steps = self._counter("engine_steps", "Decode steps.")
        answers = self._counter("answers", "Complete answers by the reason they ended.", ("stop_reason",))
        self._answers = {reason: answers.labels(reason.value) for reason in StopReason}
        self._ttft = self._histogram("ttft_seconds", "From receiving a request to its first token.")
        self._queue_wait = self._histogram(
            "queue_wait_seconds", "From being ready for the engine to having a slot there."
        )
        gaps = self._histogram("inter_token_seconds", "Between two token frames of an answer.")
        self.token_gap: Callable[[float], None] = gaps.observe
        self._gauges = _GaugeSet(self._registry)
        self._steps_counted = 0

    def begun(self, prompt_tokens: int) -> None:
        self._requests.inc()
        self._prompt_tokens.inc(prompt_tokens)

    def waited(self, seconds: float) -> None:
        """From being ready for the engine to having a slot there."""
        self._queue_wait.observe(seconds)

    def first_token(self, ttft_s: float) -> None:
        self._ttft.observe(ttft_s)

    def ended(self, reason: StopReason, tokens_out: int, decode_s: float, cached_tokens: int) -> None:
        """An answer is complete, by whatever reason."""
        self._answers[reason].inc()
        self._tokens_out.inc(tokens_out)
        self._decode_s.inc(decode_s)
        self._cached_tokens.inc(cached_tokens)
        (self._cache_hits if cached_tokens else self._cache_misses).inc()

    def refused(self) -> None:
        self._refused.inc()

    def failed(self) -> None:
        self._failed.inc()

    def preempted(self) -> None:
        self._preemptions.inc()

    def render(self, gauges: Gauges, *, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type; `accept` is the scraper's header: OpenMetrics is for those that ask."""
        self._steps.inc(gauges.engine_steps - self._steps_counted)
        self._steps_counted = gauges.engine_steps
        self._gauges.set(gauges)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, namespace=_PREFIX, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, namespace=_PREFIX, registry=self._registry, buckets=_BUCKETS_S)


class _GaugeSet:
    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, namespace=_PREFIX, registry=registry)

        self._slots = gauge("slots", "Answers that can be generated at a time.")
        self._slots_busy = gauge("slots_busy", "Answers in progress.")
        self._waiting = gauge("waiting", "Requests in line for a slot.")
        self._kv_cells = gauge("kv_cells", "Tokens that the KV cache has room for.")
        self._kv_cells_used = gauge(
            "kv_cells_used", "Tokens in the KV cache, of answers in progress and kept prefixes."
        )
        self._resident = gauge("resident_memory_bytes", "Resident memory of the process.")
        memory = gauge("memory_bytes", "What llama.cpp allocated for the model, by what it is for.", ("part",))
        self._weights, self._kv, self._compute = (memory.labels(part) for part in ("weights", "kv", "compute"))

    def set(self, now: Gauges) -> None:
        self._slots.set(now.slots)
        self._slots_busy.set(now.slots_busy)
        self._waiting.set(now.waiting)
        self._kv_cells.set(now.kv_cells)
        self._kv_cells_used.set(now.kv_cells_used)
        self._resident.set(now.resident_memory_bytes)
        memory = now.memory or MemoryParts(weights_bytes=0, kv_bytes=0, compute_bytes=0)
        self._weights.set(memory.weights_bytes)
        self._kv.set(memory.kv_bytes)
        self._compute.set(memory.compute_bytes)
