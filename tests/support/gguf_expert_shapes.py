"""Models whose feed-forward parts are experts, of which each token sees some. As in `gguf_shapes`."""

from tests.support.gguf_shapes import Dims, Model, Part, Size, Tensors, attention, blocks, ends, feed_forward, qk_norms


def _experts(block: str, size: Size, count: int, feed_forward: int) -> Tensors:
    yield f"{block}.ffn_gate_inp.weight", (size.width, count)
    yield f"{block}.ffn_gate_exps.weight", (size.width, feed_forward, count)
    yield f"{block}.ffn_up_exps.weight", (size.width, feed_forward, count)
    yield f"{block}.ffn_down_exps.weight", (feed_forward, size.width, count)


def _mixed(size: Size, count: int, *more: Part) -> dict[str, Dims]:
    tensors = dict(ends(size))
    for block in blocks(size):
        for part in (attention, *more):
            tensors |= dict(part(block, size))
        tensors[f"{block}.ffn_norm.weight"] = (size.width,)
        tensors |= dict(_experts(block, size, count, size.feed_forward))
    return tensors


def mixtral(size: Size, *, experts: int, used: int) -> Model:
    keys = {"rope.dimension_count": size.dim, "expert_count": experts, "expert_used_count": used}
    return Model("llama", size, _mixed(size, experts), keys)


def qwen3moe(size: Size, *, experts: int, used: int) -> Model:
    keys = {"expert_count": experts, "expert_used_count": used, "expert_feed_forward_length": size.feed_forward}
    return Model("qwen3moe", size, _mixed(size, experts, qk_norms), keys)


def gpt_oss(size: Size, *, experts: int, used: int, window: int) -> Model:
    def rest(block: str, size: Size) -> Tensors:
        yield f"{block}.post_attention_norm.weight", (size.width,)
        yield f"{block}.attn_sinks.weight", (size.heads,)
        for name, width in (("q", size.heads), ("k", size.heads_kv), ("v", size.heads_kv)):
            yield f"{block}.attn_{name}.bias", (width * size.dim,)
        yield f"{block}.attn_output.bias", (size.width,)
        yield f"{block}.ffn_gate_inp.bias", (experts,)
        for name, width in (("gate", size.feed_forward), ("up", size.feed_forward), ("down", size.width)):
            yield f"{block}.ffn_{name}_exps.bias", (width, experts)

    keys = {"expert_count": experts, "expert_used_count": used, "expert_feed_forward_length": size.feed_forward}
    tensors = _mixed(size, experts, rest)
    tensors = {name: dims for name, dims in tensors.items() if not name.endswith("ffn_norm.weight")}
    return Model("gpt-oss", size, tensors, keys | {"attention.sliding_window": window})


def deepseek2(size: Size, *, experts: int, used: int, kv_rank: int = 512, rope: int = 64) -> Model:
    """With latent attention: one compressed row for all heads, whose dimension of their own is `size.dim`."""

    def latent_attention(block: str) -> Tensors:
        yield f"{block}.attn_norm.weight", (size.width,)
        yield f"{block}.attn_q_a.weight", (size.width, size.width // 2)
        yield f"{block}.attn_q_a_norm.weight", (size.width // 2,)
        yield f"{block}.attn_q_b.weight", (size.width // 2, size.heads * (size.dim + rope))
        yield f"{block}.attn_kv_a_mqa.weight", (size.width, kv_rank + rope)
        yield f"{block}.attn_kv_a_norm.weight", (kv_rank,)
        yield f"{block}.attn_k_b.weight", (size.dim, kv_rank, size.heads)
        yield f"{block}.attn_v_b.weight", (kv_rank, size.dim, size.heads)
        yield f"{block}.attn_output.weight", (size.heads * size.dim, size.width)

    expert_width = size.feed_forward // 4
    tensors = dict(ends(size))
    for number, block in enumerate(blocks(size)):
        tensors |= dict(latent_attention(block))
        if number == 0:
            tensors |= dict(feed_forward(block, size))
            continue
        tensors[f"{block}.ffn_norm.weight"] = (size.width,)
        tensors |= dict(_experts(block, size, experts, expert_width))
        tensors |= {
            name.replace("exps", "shexp"): dims[:2]
            for name, dims in _experts(block, size, experts, expert_width)
            if "exps" in name
        }
    keys = {
        "attention.head_count_kv": 1,
        "attention.key_length": kv_rank + rope,
        "attention.value_length": kv_rank,
        "attention.key_length_mla": size.dim + rope,
        "attention.value_length_mla": size.dim,
        "attention.kv_lora_rank": kv_rank,
        "attention.q_lora_rank": size.width // 2,
        "rope.dimension_count": rope,
        "leading_dense_block_count": 1,
        "expert_count": experts,
        "expert_used_count": used,
        "expert_shared_count": 1,
        "expert_feed_forward_length": expert_width,
    }
    return Model("deepseek2", size, tensors, keys)
