"""Models that remember in a state instead of a cache, or in both. As in `gguf_shapes`."""

from typing import Any

from tests.support.gguf_shapes import Model, Size, Tensors, attention, blocks, ends, feed_forward, qk_norms

_CONV = 4


def _scan(block: str, size: Size, *, inner: int, state: int) -> Tensors:
    """A layer of the first Mamba."""
    rank = size.width // 16
    yield f"{block}.attn_norm.weight", (size.width,)
    yield f"{block}.ssm_in.weight", (size.width, 2 * inner)
    yield f"{block}.ssm_conv1d.weight", (_CONV, inner)
    yield f"{block}.ssm_conv1d.bias", (inner,)
    yield f"{block}.ssm_x.weight", (inner, rank + 2 * state)
    yield f"{block}.ssm_dt.weight", (rank, inner)
    yield f"{block}.ssm_dt.bias", (inner,)
    yield f"{block}.ssm_a", (state, inner)
    yield f"{block}.ssm_d", (inner,)
    yield f"{block}.ssm_out.weight", (inner, size.width)


def _scan2(block: str, size: Size, *, inner: int, state: int, heads: int) -> Tensors:
    """A layer of Mamba 2, with one group."""
    yield f"{block}.attn_norm.weight", (size.width,)
    yield f"{block}.ssm_in.weight", (size.width, 2 * inner + 2 * state + heads)
    yield f"{block}.ssm_conv1d.weight", (_CONV, inner + 2 * state)
    yield f"{block}.ssm_conv1d.bias", (inner + 2 * state,)
    yield f"{block}.ssm_dt.bias", (heads,)
    yield f"{block}.ssm_a", (1, heads)
    yield f"{block}.ssm_d", (1, heads)
    yield f"{block}.ssm_norm.weight", (inner, 1)
    yield f"{block}.ssm_out.weight", (inner, size.width)


def _state_keys(inner: int, state: int, rank: int, groups: int | None = None) -> dict[str, Any]:
    keys = {
        "ssm.conv_kernel": _CONV,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    return keys if groups is None else keys | {"ssm.group_count": groups}


_NO_ATTENTION = {"attention.head_count": 0, "attention.head_count_kv": 0, "feed_forward_length": 0}


def mamba(size: Size, *, state: int = 16) -> Model:
    tensors = dict(ends(size))
    for block in blocks(size):
        tensors |= dict(_scan(block, size, inner=2 * size.width, state=state))
    return Model("mamba", size, tensors, _NO_ATTENTION | _state_keys(2 * size.width, state, size.width // 16))


def mamba2(size: Size, *, state: int = 128) -> Model:
    inner = 2 * size.width
    heads = inner // 64
    tensors = dict(ends(size))
    for block in blocks(size):
        tensors |= dict(_scan2(block, size, inner=inner, state=state, heads=heads))
    return Model("mamba2", size, tensors, _NO_ATTENTION | _state_keys(inner, state, heads, 1))


def jamba(size: Size, *, state: int = 16) -> Model:
    """Attention in every fourth layer."""
    inner, rank = 2 * size.width, size.width // 16
    heads_kv = [size.heads_kv if number % 4 == 3 else 0 for number in range(size.layers)]
    tensors = dict(ends(size))
    for block, attends in zip(blocks(size), heads_kv, strict=True):
        if attends:
            tensors |= dict(attention(block, size))
        else:
            tensors |= dict(_scan(block, size, inner=inner, state=state))
            tensors |= {f"{block}.ssm_dt_norm.weight": (rank,)}
            tensors |= {f"{block}.ssm_{part}_norm.weight": (state,) for part in "bc"}
        tensors |= dict(feed_forward(block, size))
    return Model("jamba", size, tensors, _state_keys(inner, state, rank) | {"attention.head_count_kv": heads_kv})


def falcon_h1(size: Size, *, state: int = 128) -> Model:
    """Attention and state in every layer."""
    inner = 2 * size.width
    heads = inner // 64
    tensors = dict(ends(size))
    for block in blocks(size):
        tensors |= dict(_scan2(block, size, inner=inner, state=state, heads=heads))
        tensors |= dict(attention(block, size)) | dict(feed_forward(block, size))
        tensors[f"{block}.ffn_norm"] = tensors.pop(f"{block}.ffn_norm.weight")
    return Model("falcon-h1", size, tensors, _state_keys(inner, state, heads, 1))


def lfm2(size: Size) -> Model:
    """Short convolutions, and attention in every third layer."""
    heads_kv = [size.heads_kv if number % 3 == 2 else 0 for number in range(size.layers)]
    tensors = dict(ends(size))
    tensors["token_embd_norm.weight"] = tensors.pop("output_norm.weight")
    for block, attends in zip(blocks(size), heads_kv, strict=True):
        if attends:
            tensors |= dict(attention(block, size)) | dict(qk_norms(block, size))
        else:
            tensors |= {
                f"{block}.attn_norm.weight": (size.width,),
                f"{block}.shortconv.conv.weight": (3, size.width),
                f"{block}.shortconv.in_proj.weight": (size.width, 3 * size.width),
                f"{block}.shortconv.out_proj.weight": (size.width, size.width),
            }
        tensors |= dict(feed_forward(block, size))
    return Model("lfm2", size, tensors, {"attention.head_count_kv": heads_kv, "shortconv.l_cache": 3})
