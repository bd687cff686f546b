"""What the engine is asked to load, and how it shall compute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

KvType = Literal["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class LoadRequest:
    """What to load. None: chosen from the model, the backend and the memory that is free (`domain.context_size`).

    Args:
        n_ctx: tokens that all slots share.
        is_unified: one cache for all slots, else each has its own part of it.
        prefill_chunk: always so many tokens of a prompt in a step, for results that can be repeated exactly.
    """

    path: Path
    n_ctx: int | None = None
    slots: int | None = None
    is_unified: bool = True
    kv_type: KvType = "f16"
    flash_attention: FlashAttention = "auto"
    threads: int | None = None
    prefill_chunk: int | None = None
