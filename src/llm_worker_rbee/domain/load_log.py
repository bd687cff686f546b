"""What llama.cpp's load log tells: memory by part, and on which devices it lies.

Pure. The bindings have no other word on either. Wording of the version that is locked; a test loads real models and
fails when it moves. Sizes are logged in MiB with two decimals: a buffer's is true to 5 KiB.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rbee_shared.contracts.workers import MemoryParts

Part = Literal["weights", "kv", "compute"]

_MIB = 1024 * 1024
# load_tensors:   CPU_Mapped model buffer size =    74.10 MiB
_BUFFER = re.compile(
    r"^\w+: +(?P<name>\S+) +(?P<what>model|KV|RS|DSV4 .*state|output|compute) buffer size = +(?P<mib>[\d.]+) MiB"
)
_LAYERS = re.compile(r"^load_tensors: offloaded (?P<done>\d+)/(?P<all>\d+) layers to GPU")
_NEW_CONTEXT = "llama_context: constructing llama_context"
_PARTS: dict[str, Part] = {"model": "weights", "output": "compute", "compute": "compute"}
_CONTINUED = 5


@dataclass(frozen=True, slots=True)
class Buffer:
    """One allocation. `name` is that of its buffer type, as in `CPU_Mapped`, `CUDA1` or `MTL0_Private`."""

    name: str
    part: Part
    size_bytes: int

    @property
    def is_host(self) -> bool:
        """In main memory, pinned for a device or not."""
        return self.name.startswith(("CPU", "AMX")) or self.name.endswith("_Host")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A loaded model's buffers. `layers`: how many are on devices, of how many; None in a build for the processor."""

    buffers: tuple[Buffer, ...]
    layers: tuple[int, int] | None

    @property
    def memory(self) -> MemoryParts:
        return MemoryParts(
            weights_bytes=self._sum("weights"), kv_bytes=self._sum("kv"), compute_bytes=self._sum("compute")
        )

    @property
    def device_bytes(self) -> int:
        """All of it that is not in main memory."""
        return sum(buffer.size_bytes for buffer in self.buffers if not buffer.is_host)

    def _sum(self, part: Part) -> int:
        return sum(buffer.size_bytes for buffer in self.buffers if buffer.part == part)


def read_load_log(lines: Iterable[str]) -> LoadReport:
    """The report of the last context that was made; one that did not fit may have been tried before it."""
    weights: list[Buffer] = []
    context: list[Buffer] = []
    scratch: dict[str, Buffer] = {}
    layers = None
    for line in lines:
        if line.startswith(_NEW_CONTEXT):
            context, scratch = [], {}
        elif (match := _LAYERS.match(line)) is not None:
            layers = int(match["done"]), int(match["all"])
        elif (match := _BUFFER.match(line)) is not None:
            buffer = Buffer(match["name"], _PARTS.get(match["what"], "kv"), round(float(match["mib"]) * _MIB))
            if buffer.part == "compute":  # told anew each time it is laid out; the last one stays
                scratch[f"{match['what']} {buffer.name}"] = buffer
            else:
                (weights if buffer.part == "weights" else context).append(buffer)
    return LoadReport((*weights, *context, *scratch.values()), layers)


class LogLines:
    """Joins what llama.cpp says in fragments: a line ends with a newline, or where the next message begins."""

    def __init__(self) -> None:
        self._level = 0
        self._begun = ""

    def feed(self, level: int, text: str) -> Iterator[tuple[int, str]]:
        """The lines that are complete now, each with its level."""
        if level != _CONTINUED:
            yield from self.rest()
            self._level = level
        *complete, self._begun = (self._begun + text).split("\n")
        for line in complete:
            yield self._level, line

    def rest(self) -> Iterator[tuple[int, str]]:
        """What was begun and not ended."""
        begun, self._begun = self._begun, ""
        if begun:
            yield self._level, begun
