"""What a worker has taken at its peak, against what its model must take: file, cache, scratch buffers."""

from dataclasses import asdict, dataclass
from typing import Any

from engine_bench.models import Shape
from engine_bench.parties import Server
from engine_bench.serving import Serving

TARGET = 1.1


@dataclass(frozen=True)
class Memory:
    """`is_told`: cache and scratch buffers are what the worker says; else computed from the shape."""

    peak_rss_bytes: int
    file_bytes: int
    kv_bytes: int
    compute_bytes: int
    is_told: bool

    @property
    def ratio(self) -> float:
        return self.peak_rss_bytes / (self.file_bytes + self.kv_bytes + self.compute_bytes)

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "target": TARGET}


def memory_of(server: Server, shape: Shape, serving: Serving) -> Memory | None:
    """None where the system does not tell a process's peak."""
    peak_rss_bytes = server.peak_rss_bytes()
    if peak_rss_bytes is None:
        return None
    told = server.health().get("memory") or {}
    return Memory(
        peak_rss_bytes,
        serving.model.stat().st_size,
        kv_bytes=told.get("kv_bytes", shape.kv_bytes(serving.n_ctx)),
        compute_bytes=told.get("compute_bytes", shape.compute_bytes()),
        is_told=bool(told),
    )
