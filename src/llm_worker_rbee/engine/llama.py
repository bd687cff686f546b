"""A loaded model with its one context: tokenize, decode a batch, sample. Owned by the engine thread.

`LlamaModel.tokenize` alone may be called from any thread: the vocabulary never changes.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from llm_worker_rbee.domain.batch_plan import PREFILL_CHUNK_TOKENS
from llm_worker_rbee.domain.prompt_pieces import Piece
from rbee_shared.errors import InternalError

_PIECE_BYTES = 256
_FULL = 1


class Vocabulary:
    """Tokens to bytes and back."""

    def __init__(self, bindings: Any, model: int) -> None:
        self._c = bindings
        self._vocab = bindings.llama_model_get_vocab(model)
        self.size = int(bindings.llama_vocab_n_tokens(self._vocab))
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces: dict[int, bytes | None] = {}
        self.bos = self._text(bindings.llama_vocab_bos(self._vocab))
        self.eos = self._text(bindings.llama_vocab_eos(self._vocab))
        self.first_token = max(0, int(bindings.llama_vocab_bos(self._vocab)))
        self.adds_bos = bool(bindings.llama_vocab_get_add_bos(self._vocab))

    def piece(self, token: int) -> bytes | None:
        """The bytes of `token`: empty for a control token, None for one that ends the answer."""
        try:
            return self._pieces[token]
        except KeyError:
            piece = None if self._c.llama_vocab_is_eog(self._vocab, token) else self._render(token, special=False)
            self._pieces[token] = piece
            return piece

    def tokenize(self, piece: Piece, *, add_special: bool) -> list[int]:
        """The tokens of a text; `add_special` puts what the model wants at the beginning of a prompt. Thread-safe."""
        data = piece.text.encode("utf-8", errors="replace")
        room = len(data) + 8  # no token is shorter than a byte; the rest is BOS, EOS and a space
        tokens = (ctypes.c_int32 * room)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), tokens, room, add_special, piece.special)
        if count < 0:
            raise InternalError(f"llama.cpp wants room for {-count} tokens of {len(data)} bytes")
        return [int(token) for token in tokens[:count]]

    def control_texts(self) -> list[str]:
        """The texts that are control tokens when a prompt is parsed with them."""
        control = self._c.LLAMA_TOKEN_ATTR_CONTROL | self._c.LLAMA_TOKEN_ATTR_UNKNOWN
        attributes = self._c.llama_vocab_get_attr
        return [self._text(token) for token in range(self.size) if attributes(self._vocab, token) & control]

    def _text(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""
        return bytes(self._c.llama_vocab_get_text(self._vocab, token) or b"").decode(errors="replace")

    def _render(self, token: int, *, special: bool) -> bytes:
        size = self._c.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        if size < 0:  # the buffer is too small: llama.cpp says by how much
            self._buffer = ctypes.create_string_buffer(-size)
            size = self._c.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[: max(0, size)]


class LlamaContext:
    """Decodes batches of tokens of any sequences; a row with logits can be sampled until the next decode."""

    def __init__(self, bindings: Any, context: int, *, n_seq_max: int) -> None:
        self._c = bindings
        self._context = context
        self._memory = bindings.llama_get_memory(context)
        self.n_ctx = int(bindings.llama_n_ctx_seq(context))
        self.n_seq_max = n_seq_max
        self._batch = bindings.llama_batch_init(PREFILL_CHUNK_TOKENS, 0, 1)
        self._rows_with_logits: set[int] = set()

    def clear_batch(self) -> None:
        """Begin the batch of the next decode."""
        self._batch.n_tokens = 0
        self._rows_with_logits.clear()

    def add(self, tokens: Sequence[int], position: int, seq_id: int, *, sample: bool) -> int:
        """Put `tokens` of one sequence into the batch. Returns the row of the last one, sampled from if `sample`."""
        batch = self._batch
        row = batch.n_tokens
        if row + len(tokens) > PREFILL_CHUNK_TOKENS or position + len(tokens) > self.n_ctx:  # it would abort
            raise InternalError(f"{len(tokens)} tokens at {position} do not fit into batch or context")
        for token in tokens:
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = seq_id
            batch.logits[row] = 0
            row += 1
            position += 1
        last = int(row) - 1
        if sample:
            batch.logits[last] = 1
            self._rows_with_logits.add(last)
        batch.n_tokens = row
        return last

    def decode(self) -> bool:
        """Run the batch; False when the cache has no room for it.

        Raises:
            InternalError: llama.cpp could not compute it.
        """
        result = self._c.llama_decode(self._context, self._batch)
        if result not in {0, _FULL}:
            raise InternalError(f"llama_decode failed with {result}")
        return bool(result == 0)

    def has_logits(self, row: int) -> bool:
        """Whether the last decode left a distribution for `row`; sampling without one aborts the process."""
        return bool(self._c.llama_get_logits_ith(self._context, row))

    def sample(self, sampler: Any, row: int) -> int:
        """Choose the token that follows `row` of the batch, and tell the sampler."""
        if row not in self._rows_with_logits:  # llama.cpp would abort the process
            raise InternalError(f"row {row} of the batch has no logits")
        return int(self._c.llama_sampler_sample(sampler, self._context, row))

    def forget(self, seq_id: int) -> None:
        """Free what the cache holds of a sequence."""
        self._c.llama_memory_seq_rm(self._memory, seq_id, -1, -1)

    def free(self) -> None:
        self._c.llama_batch_free(self._batch)
        self._c.llama_free(self._context)
