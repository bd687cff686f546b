"""What a party is to serve, the same for all that are compared: a file, slots, a total context, a mode of the cache."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

KvMode = Literal["unified", "split"]
_MULTIPLE = 256  # llama.cpp rounds each sequence's part of a split context up to it


@dataclass(frozen=True)
class Serving:
    """`n_ctx`: tokens of all slots together; `threads`: what everybody computes with."""

    model: Path
    slots: int
    n_ctx: int
    kv: KvMode
    threads: int

    def facts(self) -> dict[str, str | int]:
        """For a command line, and for a child's."""
        return {**asdict(self), "model": str(self.model)}


def context_of(slots: int, tokens: int) -> int:
    """A total context in which each of `slots` sequences has room for `tokens`, however it is shared."""
    return slots * -(-tokens // _MULTIPLE) * _MULTIPLE
