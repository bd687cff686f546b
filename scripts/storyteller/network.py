"""A llama-architecture network in PyTorch, as small as it gets: RMS norms, rotary attention, gated feed-forward.

Tensor names and layouts are llama.cpp's, so exporting is copying: rotary pairs are neighbours, the output matrix is the
embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The hyperparameters that llama.cpp reads from the header."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 3
    feed_forward: int = 512
    context_tokens: int = 2048
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Numbers per attention head."""
        return self.width // self.heads


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normed copy and added back."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """`x` is `[rows, tokens, width]`; `cos` and `sin` are `[tokens, head_width / 2]`."""
        normed = self.attn_norm(x)
        q = _rotate(self._by_head(self.attn_q(normed)), cos, sin)
        k = _rotate(self._by_head(self.attn_k(normed)), cos, sin)
        v = self._by_head(self.attn_v(normed))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(x.shape))
        normed = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(normed)) * self.ffn_up(normed))

    def lean_towards_copying(self) -> None:
        """Start with attention that looks for tokens like this one and repeats them.

        A story must keep the name it began with; from a random start that is what a network learns last.
        Source: Trockman and Kolter, "Mimetic initialization of self-attention layers" (2023).
        """
        nn.init.orthogonal_(self.attn_q.weight, gain=0.6)
        nn.init.orthogonal_(self.attn_v.weight, gain=0.4)
        with torch.no_grad():
            self.attn_k.weight.copy_(self.attn_q.weight)
            self.attn_output.weight.copy_(self.attn_v.weight.T)
            self.ffn_down.weight.mul_(0.35)

    def _by_head(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        return x.view(rows, tokens, self.heads, width // self.heads).transpose(1, 2)


class Network(nn.Module):
    """Token ids in, hidden states out; `logits` turns the states that matter into predictions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.apply(_initialise)
        for block in self.blk:
            block.lean_towards_copying()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[rows, tokens]` to `[rows, tokens, width]`; `mask` says who sees whom, by default everybody what came before."""
        cos, sin = _angles(self.shape, tokens.shape[1])
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin, mask)
        hidden: Tensor = self.output_norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., width]` to `[..., vocabulary]`."""
        return functional.linear(hidden, self.token_embd.weight)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.04)


def _angles(shape: Shape, tokens: int) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, shape.head_width, 2) / shape.head_width
    angles = torch.outer(torch.arange(tokens).float(), shape.rope_base**-exponents)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
