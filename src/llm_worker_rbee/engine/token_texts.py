"""What each token of a vocabulary writes, as llguidance wants to know it."""

import ctypes
from collections.abc import Iterable
from typing import Any

_PIECE_BYTES = 256
_SPECIAL = b"\xff"  # llguidance's mark: no text begins with it


class TokenTexts:
    """Reads a vocabulary that never changes, from any thread."""

    def __init__(self, bindings: Any, vocab: Any) -> None:
        self._c = bindings
        self.vocab = vocab
        self.size = int(bindings.llama_vocab_n_tokens(vocab))

    @property
    def tokenize_address(self) -> int:
        """Of the C function that tokenizes."""
        address = ctypes.cast(self._c._lib.llama_tokenize, ctypes.c_void_p).value  # noqa: SLF001
        assert address is not None
        return address

    def ends(self) -> list[int]:
        """All tokens that end an answer: there may be one for the text, one for the turn, one for the message."""
        is_end = self._c.llama_vocab_is_eog
        return [token for token in range(self.size) if is_end(self.vocab, token)]

    def all(self, ends: Iterable[int]) -> list[bytes]:
        """By id. What writes nothing into an answer, as a control token, is empty and never allowed.

        So are the ends: one that also has a text would end an answer where only its text was allowed.
        """
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        texts = [self._text(token, buffer) for token in range(self.size)]
        for token in ends:
            texts[token] = _SPECIAL + str(token).encode()
        return texts

    def _text(self, token: int, buffer: Any) -> bytes:
        size = self._c.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)  # noqa: FBT003
        if size < 0:
            return self._text(token, ctypes.create_string_buffer(-size))
        text = buffer.raw[:size]
        return text if not text.startswith(_SPECIAL) else b""
