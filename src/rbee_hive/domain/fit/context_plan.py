"""With how many tokens and slots a worker would make its context, and what llama.cpp makes of that.

Where nobody has said so the numbers are those that the worker chooses by itself from what is free.
"""

from dataclasses import dataclass
from typing import Literal

from rbee_hive.domain.fit.model_shape import ModelShape
from rbee_hive.domain.models.ggml_types import TYPES_BY_NAME, GgmlType
from rbee_shared.contracts.tasks import Backend

BATCH_TOKENS = 512
"""Most tokens of one step, as the worker's engine has it."""

_CPU_SLOTS, _GPU_SLOTS = 4, 16
_USUAL_TOKENS = 4096
_SHARE_OF_FREE = 4
_CELLS = 256  # llama.cpp rounds up to it
_F16_BYTES = 2


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """A context as the worker asks for it.

    Args:
        n_ctx: tokens that all slots share, or that are split among them.
        is_windowed: layers that see a window keep no more than it; llama.cpp's default keeps all for them, too.
    """

    n_ctx: int
    slots: int
    is_unified: bool = True
    kv_type: str = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    is_windowed: bool = False

    @property
    def streams(self) -> int:
        """Caches: one for all slots, or one for each."""
        return 1 if self.is_unified else self.slots

    @property
    def stream_cells(self) -> int:
        """Tokens that each cache holds."""
        padded = _padded(self.n_ctx)
        return padded if self.is_unified else _padded(padded // self.slots)

    @property
    def batch_tokens(self) -> int:
        """Most tokens of a step, a multiple of the slots as llama.cpp makes it."""
        tokens = min(self.n_ctx, BATCH_TOKENS)
        return -(-tokens // self.slots) * self.slots

    @property
    def kv_format(self) -> GgmlType:
        return TYPES_BY_NAME[self.kv_type.upper()]

    def window_cells(self, window: int) -> int:
        """Tokens that the cache of a windowed layer holds, in each stream."""
        if not self.is_windowed:
            return self.stream_cells
        sequences = self.slots if self.is_unified else 1
        return _padded(min(self.stream_cells, window * sequences + min(self.n_ctx, BATCH_TOKENS)))


def plan_context(
    shape: ModelShape, *, n_ctx: int | None, slots: int | None, free_bytes: int, backend: Backend
) -> ContextPlan:
    """The context that a worker makes when `n_ctx` or `slots` are left to it.

    Args:
        free_bytes: of the device, once the weights are in it.
    """
    chosen_slots = slots or (_CPU_SLOTS if backend == "cpu" else _GPU_SLOTS)
    if n_ctx is not None:
        return ContextPlan(n_ctx, chosen_slots)
    one = min(shape.n_ctx_train, _USUAL_TOKENS)
    token_bytes = _token_bytes(shape)
    affordable = max(free_bytes, 0) // _SHARE_OF_FREE // token_bytes if token_bytes else one * chosen_slots
    return ContextPlan(max(one, min(one * chosen_slots, affordable // _CELLS * _CELLS)), chosen_slots)


def _token_bytes(shape: ModelShape) -> int:
    """The worker's guess at the memory of one token: as if every layer were like the first."""
    first = shape.layers[0]
    return 2 * _F16_BYTES * shape.n_layers * first.heads_kv * (shape.n_embd // max(1, first.heads))


def _padded(cells: int) -> int:
    return -(-cells // _CELLS) * _CELLS
