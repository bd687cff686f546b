"""llama.cpp by its bare functions: a model, one sequence, its logits and a sampler. Nothing of the worker's engine."""

import ctypes
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_worker_rbee.engine.library import load_bindings


class RawModel:
    """A loaded model with one sequence, on one thread."""

    def __init__(self, bindings: Any, model: int, context: Any) -> None:
        self.bindings = bindings
        self.vocab = bindings.llama_model_get_vocab(model)
        self.n_vocab = int(bindings.llama_vocab_n_tokens(self.vocab))
        self.ends = {token for token in range(self.n_vocab) if bindings.llama_vocab_is_eog(self.vocab, token)}
        self._context = context

    def tokenize(self, text: str) -> list[int]:
        """With BOS, control tokens parsed."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = self.bindings.llama_tokenize(self.vocab, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def text(self, tokens: Sequence[int]) -> bytes:
        """What an answer of these tokens says."""
        buffer = ctypes.create_string_buffer(256)
        pieces = []
        for token in tokens:
            size = self.bindings.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
            pieces.append(buffer.raw[:size])
        return b"".join(pieces)

    def restart(self) -> None:
        """Forget the sequence."""
        self.bindings.llama_memory_clear(self.bindings.llama_get_memory(self._context), True)

    def decode(self, tokens: Sequence[int]) -> Any:
        """Go on with `tokens`. Returns the logits of the last: a pointer, good until the next decode."""
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        assert self.bindings.llama_decode(self._context, self.bindings.llama_batch_get_one(array, len(tokens))) == 0
        return self.bindings.llama_get_logits_ith(self._context, -1)

    @contextmanager
    def sampler(self, temperature: float, seed: int) -> Generator[Any]:
        """A chain of llama.cpp's own; sample with `sample`."""
        c = self.bindings
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(temperature))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(seed))
        try:
            yield chain
        finally:
            c.llama_sampler_free(chain)

    def sample(self, chain: Any) -> int:
        """From the logits as they now stand."""
        return int(self.bindings.llama_sampler_sample(chain, self._context, -1))


@contextmanager
def raw_model(path: Path, *, n_ctx: int = 1024) -> Generator[RawModel]:
    """Load `path` and free it again."""
    c = load_bindings()
    silence = c.llama_log_callback(lambda *_: None)
    c.llama_log_set(silence, None)
    c.llama_backend_init()
    model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    assert model
    params = c.llama_context_default_params()
    params.n_ctx = params.n_batch = n_ctx
    params.n_threads = params.n_threads_batch = 1
    context = c.llama_init_from_model(model, params)
    assert context
    try:
        yield RawModel(c, model, context)
    finally:
        c.llama_free(context)
        c.llama_model_free(model)
        _KEPT.append(silence)


_KEPT: list[Any] = []  # llama.cpp calls its log callback until the process ends
