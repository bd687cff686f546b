"""A loaded model with its one context: tokenize, decode a batch, sample. Owned by the engine thread.

`LlamaModel.tokenize` alone may be called from any thread: the vocabulary never changes.
"""

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS
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
        self._pieces: dict[int, bytes | None] = {}
        self.bos = self._text(bindings.llama_vocab_bos(self._vocab))
        self.eos = self._text(bindings.llama_vocab_eos(self._vocab))
        self.first_token = max(0, int(bindings.llama_vocab_bos(self._vocab)))
        self.adds_bos = bool(bindings.llama_vocab_get_add_bos(self._vocab))

    def piece(self, token: int) -> bytes | None:
        """The bytes of `token`: empty for a control token, None for one that ends the answer. Thread-safe."""
        try:
            return self._pieces[token]
        except KeyError:
            piece = None if self._c.llama_vocab_is_eog(self._vocab, token) else self._render(token)
            self._pieces[token] = piece
            return piece

    def tokenize(self, piece: Piece, *, add_special: bool) -> list[int]:
        """The tokens of a text; `add_special` puts what the model wants at the beginning of a prompt. Thread-safe."""
        data = piece.text.encode("utf-8", errors="replace")
        tokens, count = self._tokenized(data, len(data) + 8, add_special=add_special, special=piece.special)
        if count < 0:  # a space may be three tokens where the vocabulary has no piece for it: llama.cpp says how many
            tokens, count = self._tokenized(data, -count, add_special=add_special, special=piece.special)
        if count < 0:
            raise InternalError(f"llama.cpp wants room for {-count} tokens of {len(data)} bytes")
        return list(tokens[:count])

    def _tokenized(self, data: bytes, room: int, *, add_special: bool, special: bool) -> tuple[Any, int]:
        tokens = (ctypes.c_int32 * room)()
        return tokens, self._c.llama_tokenize(self._vocab, data, len(data), tokens, room, add_special, special)

    @cached_property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        return [token for token in range(self.size) if self._c.llama_vocab_is_eog(self._vocab, token)]

    def control_texts(self) -> list[str]:
        """The texts that are control tokens when a prompt is parsed with them."""
        control = self._c.LLAMA_TOKEN_ATTR_CONTROL | self._c.LLAMA_TOKEN_ATTR_UNKNOWN
        attributes = self._c.llama_vocab_get_attr
        return [self._text(token) for token in range(self.size) if attributes(self._vocab, token) & control]

    def _text(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""
        return bytes(self._c.llama_vocab_get_text(self._vocab, token) or b"").decode(errors="replace")

    def _render(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)  # noqa: FBT003 - ctypes knows no names
        if size < 0:  # the buffer is too small: llama.cpp says by how much
            buffer = ctypes.create_string_buffer(-size)
            size = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)  # noqa: FBT003 - ctypes knows no names
        return buffer.raw[: max(0, size)]


class LlamaContext:
    """Decodes batches of tokens of any sequences; a row with logits can be sampled until the next decode."""

    def __init__(self, bindings: Any, context: int, *, n_seq_max: int, is_unified: bool, is_recurrent: bool) -> None:
        self._c = bindings
        self._context = context
        self._memory = bindings.llama_get_memory(context)
        self.n_ctx = int(bindings.llama_n_ctx(context))
        self.n_ctx_seq = int(bindings.llama_n_ctx_seq(context))
        self.n_seq_max = n_seq_max
        self.is_unified = is_unified
        self.can_trim = not is_recurrent
        self.can_share = is_unified and not is_recurrent
        self._batch = bindings.llama_batch_init(BATCH_TOKENS, 0, 1)
        for row in range(BATCH_TOKENS):
            self._batch.n_seq_id[row] = 1
        self._rows_with_logits: set[int] = set()

    def clear_batch(self) -> None:
        """Begin the batch of the next decode."""
        self._batch.n_tokens = 0
        self._rows_with_logits.clear()

    def add(self, tokens: Sequence[int], position: int, seq_id: int, *, sample: bool) -> int:
        """Put `tokens` of one sequence into the batch. Returns the row of the last one, sampled from if `sample`."""
        batch = self._batch
        row = begin = batch.n_tokens
        end = begin + len(tokens)
        if end > BATCH_TOKENS or position + len(tokens) > self.n_ctx_seq:  # it would abort
            raise InternalError(f"{len(tokens)} tokens at {position} do not fit into batch or context")
        ids, positions, sequences, logits = batch.token, batch.pos, batch.seq_id, batch.logits
        for row, token in enumerate(tokens, begin):
            ids[row] = token
            positions[row] = position + row - begin
            sequences[row][0] = seq_id
            logits[row] = 0
        if sample:
            logits[row] = 1
            self._rows_with_logits.add(row)
        batch.n_tokens = end
        return int(row)

    def decode(self) -> bool:
        """Run the batch; False when the cache has no room for it.

        Raises:
            InternalError: llama.cpp could not compute it.
        """
        result = self._c.llama_decode(self._context, self._batch)
        if result not in {0, _FULL}:
            raise InternalError(f"llama_decode failed with {result}")
        return bool(result == 0)

    def logits(self, row: int) -> Any:
        """The distribution after `row` of the batch, a pointer to as many floats as there are tokens; null for none."""
        self._require_logits(row)
        return self._c.llama_get_logits_ith(self._context, row)

    def sample(self, sampler: Any, row: int) -> int:
        """Choose the token that follows `row` of the batch, and tell the sampler."""
        self._require_logits(row)
        return int(self._c.llama_sampler_sample(sampler, self._context, row))

    def share(self, source: int, seq_id: int, tokens: int) -> None:
        """Let `seq_id`, which has none, begin with the first `tokens` of `source`; both use the same cells."""
        assert self.can_share, "llama.cpp would abort the process"
        self._c.llama_memory_seq_cp(self._memory, source, seq_id, 0, tokens)

    def keep(self, seq_id: int, tokens: int) -> bool:
        """Forget all but the first `tokens` of a sequence; False, and all is forgotten, where the model cannot."""
        if self._c.llama_memory_seq_rm(self._memory, seq_id, tokens, -1):
            return True
        self.forget(seq_id)
        return False

    def forget(self, seq_id: int) -> None:
        """Free what the cache holds of a sequence."""
        self._c.llama_memory_seq_rm(self._memory, seq_id, -1, -1)

    def free(self) -> None:
        self._c.llama_batch_free(self._batch)
        self._c.llama_free(self._context)

    def _require_logits(self, row: int) -> None:
        if row not in self._rows_with_logits:  # llama.cpp would abort the process
            raise InternalError(f"row {row} of the batch has no logits")
