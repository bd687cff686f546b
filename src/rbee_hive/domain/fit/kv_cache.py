"""Bytes of what a model remembers of its context: keys and values by layer, and the states of recurrent layers.

Exactly what llama.cpp allocates: it logs the same number as `KV buffer size` and `RS buffer size`.
"""

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.model_layers import Layer
from rbee_hive.domain.fit.model_shape import ModelShape

_F32_BYTES = 4


def kv_bytes(shape: ModelShape, plan: ContextPlan, *, flash_attention: bool) -> int:
    """For a full context. TinyLlama 1.1B (22 layers, 4 KV heads of 64) at 2048 tokens in f16: 46_137_344, 44 MiB."""
    values_padded = 0 if flash_attention else max((layer.value_values for layer in shape.layers), default=0)
    layers = [layer for layer in shape.layers if layer.has_cache]
    cached = sum(plan.streams * _layer_bytes(shape, plan, layer, values_padded) for layer in layers)
    return cached + _state_bytes(shape, plan)


def _state_bytes(shape: ModelShape, plan: ContextPlan) -> int:
    """Of the layers that keep a state for each sequence."""
    recurrent = sum(layer.has_state for layer in shape.layers)
    return recurrent * plan.slots * (shape.state.conv_values + shape.state.scan_values) * _F32_BYTES


def _layer_bytes(shape: ModelShape, plan: ContextPlan, layer: Layer, values_padded: int) -> int:
    """Of one layer in one stream. Without flash attention all layers have values as wide as the widest."""
    cells = plan.window_cells(shape.window) if layer.is_windowed else plan.stream_cells
    row = _row_bytes(plan, layer.key_values) + _row_bytes(plan, shape.indexer_dim)
    if not shape.is_latent:
        row += _row_bytes(plan, max(layer.value_values, values_padded))
    return cells * row


def _row_bytes(plan: ContextPlan, values: int) -> int:
    kind = plan.kv_format
    return kind.size_bytes(-(-values // kind.block_size) * kind.block_size)
