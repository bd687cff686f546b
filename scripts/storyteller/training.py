"""Training: rows of packed documents in, a trained network out; progress goes to a callback in plain words.

First every document sees only itself, which makes it easy to learn whose name to repeat. Then later documents of a row see
the earlier ones, the way a turn of a conversation sees the turns before it, and some rows are as long as the context, so
that long conversations keep working.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

from storyteller.corpus import USER, documents
from storyteller.network import Network, Shape
from storyteller.tokenizer import BEGIN_ID

_TOKENS_PER_STEP = 2048
_SHORT_TOKENS, _MIDDLE_TOKENS, _LONG_TOKENS = 320, 1024, 2048
_MIDDLE_EVERY, _LONG_EVERY = 10, 40
_BEGIN_SHARE = 0.15
_APART_SHARE = 0.45
_RENAMED_SHARE_APART, _RENAMED_SHARE_TOGETHER = 0.7, 0.05
_IGNORED = -100
_WARMUP_STEPS = 50
_REPORT_EVERY = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    steps: int
    seed: int
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01


class Batch(NamedTuple):
    """Rows of token ids, what is to be predicted at each place, and the number of the document each token is from."""

    tokens: Tensor
    targets: Tensor
    document_numbers: Tensor


def train(
    recipe: Recipe, tokenizer: sentencepiece.SentencePieceProcessor, say: Callable[[str], None]
) -> tuple[Network, float]:
    """Train from scratch; returns the network and its mean cross-entropy over the last steps."""
    torch.manual_seed(recipe.seed)
    network = Network(Shape(vocabulary=tokenizer.get_piece_size()))
    say(f"The network has {sum(p.numel() for p in network.parameters()):,} parameters.")
    optimizer = _optimizer(network, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, recipe.steps))
    rows = _Rows(tokenizer, recipe.seed)
    began_s = time.monotonic()
    recent: list[float] = []
    for step in range(1, recipe.steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            is_apart = step <= recipe.steps * _APART_SHARE
            batch = rows.batch(_row_tokens(step, is_apart=is_apart), is_apart=is_apart)
            loss = _loss(network, batch, is_apart=is_apart)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent = [*recent[-49:], loss.item()]
        if step % _REPORT_EVERY == 0 or step == recipe.steps:
            say(f"Step {step} of {recipe.steps}: loss {_mean(recent):.3f}, {time.monotonic() - began_s:.0f} s so far.")
    return network, _mean(recent)


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )


def _learning_rate_factor(step: int, steps: int) -> float:
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    done = (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _row_tokens(step: int, *, is_apart: bool) -> int:
    if is_apart:
        return _SHORT_TOKENS
    if step % _LONG_EVERY == 0:
        return _LONG_TOKENS
    return _MIDDLE_TOKENS if step % _MIDDLE_EVERY == 0 else _SHORT_TOKENS


def _loss(network: Network, batch: Batch, *, is_apart: bool) -> Tensor:
    is_learned = batch.targets != _IGNORED
    mask = _own_document_only(batch.document_numbers) if is_apart else None
    logits = network.logits(network(batch.tokens, mask)[is_learned])
    return functional.cross_entropy(logits.float(), batch.targets[is_learned])


def _own_document_only(document_numbers: Tensor) -> Tensor:
    """`[rows, 1, tokens, tokens]`: may the token of that row look at the token of that column?"""
    tokens = document_numbers.shape[1]
    is_same = document_numbers[:, :, None] == document_numbers[:, None, :]
    return (is_same & torch.ones(tokens, tokens, dtype=torch.bool).tril())[:, None]


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


class _Rows:
    """Rows of packed documents, cut from the endless corpus."""

    def __init__(self, tokenizer: sentencepiece.SentencePieceProcessor, seed: int) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)  # noqa: S311 - training data, not secrets
        self._apart = self._encoded(seed, _RENAMED_SHARE_APART)
        self._together = self._encoded(seed + 1, _RENAMED_SHARE_TOGETHER)

    def batch(self, row_tokens: int, *, is_apart: bool) -> Batch:
        source = self._apart if is_apart else self._together
        rows = [self._row(source, row_tokens + 1) for _ in range(max(1, _TOKENS_PER_STEP // row_tokens))]
        numbers = torch.tensor(rows)
        tokens, targets, document_numbers = numbers.unbind(-1)
        return Batch(tokens[:, :-1], targets[:, 1:], document_numbers[:, :-1])

    def _row(self, source: Iterator[list[tuple[int, bool]]], length: int) -> list[tuple[int, int, int]]:
        """A triple per token: its id, the same id or `_IGNORED` as a target, the number of its document."""
        row = [(BEGIN_ID, _IGNORED, 0)] if self._rng.random() < _BEGIN_SHARE else []
        number = 0
        while len(row) < length:
            document = next(source)
            if number == 0 or document[0][0] == self._tokenizer.piece_to_id(USER):
                row += [(token, token if is_learned else _IGNORED, number) for token, is_learned in document]
                number += 1
        return row[:length]

    def _encoded(self, seed: int, renamed_share: float) -> Iterator[list[tuple[int, bool]]]:
        for document in documents(seed, renamed_share):
            encoded: list[tuple[int, bool]] = []
            for piece in document:
                ids = (
                    [self._tokenizer.piece_to_id(piece.text)]
                    if piece.is_control
                    else self._tokenizer.encode(piece.text)
                )
                encoded += [(token, piece.is_learned) for token in ids]
            yield encoded
