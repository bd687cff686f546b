"""Bytes of the buffers that a step computes in, as llama.cpp reserves them for the largest step.

llama.cpp lays out each tensor of its graph and uses memory again where it can; which holes fit is its own business.
So this counts the tensors that are alive at the fullest place of each kind of layer, and rounds up where the layout
varies: measured on sixteen architectures it is a tenth too much, in the worst case a quarter, and never too little.
"""

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.model_layers import Layer
from rbee_hive.domain.fit.model_shape import ModelShape

_F16_BYTES, _F32_BYTES = 2, 4
_TOKEN_INPUT_BYTES = 64  # its id, its position, where its key and its value go
_ROTATION_BYTES = 6  # for each pair of a head's dimensions: matrices that spread the values of a quantised cache


def step_bytes(shape: ModelShape, plan: ContextPlan, *, flash_attention: bool) -> int:
    """Of the fullest place in a step, wherever the layers are."""
    values = max(_layer_values(shape, plan, layer, flash_attention=flash_attention) for layer in shape.layers)
    masks = mask_bytes(shape, plan, flash_attention=flash_attention)
    widest_head = max(layer.key_dim for layer in shape.layers)
    rotation = _ROTATION_BYTES * widest_head**2 if plan.kv_format.is_quantized else 0
    inside = masks + plan.batch_tokens * (values * _F32_BYTES + _TOKEN_INPUT_BYTES) + rotation
    return max(inside, logits_bytes(shape, plan) + plan.slots * shape.n_embd * _F32_BYTES)


def mask_bytes(shape: ModelShape, plan: ContextPlan, *, flash_attention: bool) -> int:
    """Who may look at whom: every token of a step at every cell."""
    attending = [layer for layer in shape.layers if layer.has_cache]
    cells = 0 if all(layer.is_windowed for layer in attending) else plan.stream_cells
    if any(layer.is_windowed for layer in attending):
        cells += plan.window_cells(shape.window)
    return plan.batch_tokens * cells * (_F16_BYTES if flash_attention else _F32_BYTES)


def logits_bytes(shape: ModelShape, plan: ContextPlan) -> int:
    """One row of the vocabulary for each slot: in the step's buffer, and once more where the sampler reads it."""
    return plan.slots * shape.n_vocab * _F32_BYTES


def embedded_bytes(shape: ModelShape, plan: ContextPlan) -> int:
    """The tokens of a step, looked up: copied from main memory to a graphics device."""
    return plan.batch_tokens * shape.n_embd * _F32_BYTES


def _layer_values(shape: ModelShape, plan: ContextPlan, layer: Layer, *, flash_attention: bool) -> int:
    """Of each token, at the fullest place of a layer."""
    attention = _attention_values(shape, layer)
    if layer.has_cache and not flash_attention:
        cells = plan.window_cells(shape.window) if layer.is_windowed else plan.stream_cells
        attention += layer.heads * cells
    state = _state_values(shape, plan, layer) if layer.has_state else 0
    return max(attention, state, _feed_forward_values(shape, layer))


def _attention_values(shape: ModelShape, layer: Layer) -> int:
    if shape.is_latent:  # each head has a query of its own for the row that all share
        head = 2 * layer.key_dim + shape.latent_query_dim
        return 8 * shape.n_embd + layer.heads * head
    return 4 * shape.n_embd + 2 * layer.query_values + layer.key_values + layer.value_values


def _state_values(shape: ModelShape, plan: ContextPlan, layer: Layer) -> int:
    state = shape.state
    kept = plan.slots * (state.scan_values + 2 * state.conv_values) // plan.batch_tokens
    beside = 3 * shape.n_embd // 2 if layer.has_cache else 0
    return 2 * shape.n_embd + beside + 13 * state.inner // 2 + state.shared + kept


def _feed_forward_values(shape: ModelShape, layer: Layer) -> int:
    branches, width = (3, 11) if shape.has_gate else (2, 6)
    dense = branches * layer.feed_forward + width * shape.n_embd // 2
    experts = shape.experts
    if not experts.count:
        return dense
    inner, outer = experts.used * experts.feed_forward, experts.used * shape.n_embd
    beside = (16 if experts.has_shared else 11) * shape.n_embd // 2
    # what the experts give is written over two of the branches, if it fits there
    return max(dense, branches * inner + beside + (0 if outer <= 2 * inner else outer))


def work_bytes(shape: ModelShape, plan: ContextPlan) -> int:
    """What the processor's kernels convert the tokens of a step into. llama.cpp does not log it."""
    experts = shape.experts.used * max(shape.experts.feed_forward, shape.n_embd)
    widest = max(shape.n_embd, shape.state.inner, experts, *(layer.feed_forward for layer in shape.layers))
    return plan.batch_tokens * widest * _F16_BYTES
