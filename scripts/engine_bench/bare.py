"""The reference: nothing but `llama_decode` and the native sampler in a plain Python loop, in a process of its own.

All prompts first, in full batches ordered by sequence, then one token of every sequence a step: what continuous
batching comes to when nobody joins or leaves.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from engine_bench.child import Arrivals, serve, serving_argument
from engine_bench.serving import Serving
from llm_worker_rbee.engine.library import NativeLog, load_bindings

_BATCH_TOKENS = 512


class _Bare:
    """Model, context, batch and one greedy chain for each sequence."""

    def __init__(self, bindings: Any, serving: Serving) -> None:
        self._c = bindings
        bindings.llama_backend_init()
        model = bindings.llama_model_load_from_file(str(serving.model).encode(), bindings.llama_model_default_params())
        params = bindings.llama_context_default_params()
        params.n_ctx, params.n_seq_max = serving.n_ctx, serving.slots
        params.n_batch = params.n_ubatch = _BATCH_TOKENS
        params.n_threads = params.n_threads_batch = serving.threads
        params.kv_unified = serving.kv == "unified"
        params.no_perf = True
        self._context = bindings.llama_init_from_model(model, params)
        if not self._context:
            raise SystemExit(f"no context of {serving.n_ctx} tokens for {serving.model}")
        self._memory = bindings.llama_get_memory(self._context)
        self._batch = bindings.llama_batch_init(_BATCH_TOKENS, 0, 1)
        for row in range(_BATCH_TOKENS):
            self._batch.n_seq_id[row] = 1
        self._chains = [self._greedy() for _ in range(serving.slots)]

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Arrivals:
        """Every answer to its full length."""
        self._c.llama_memory_clear(self._memory, False)  # noqa: FBT003 - ctypes knows no names
        arrivals: Arrivals = [[] for _ in prompts]
        said = self._prefill(prompts, arrivals)
        places = [(seq_id, len(prompt)) for seq_id, prompt in enumerate(prompts)]
        for step in range(tokens - 1):
            self._fill([(said[seq_id], begin + step, seq_id, True) for seq_id, begin in places])
            self._decode()
            for seq_id, _ in places:
                said[seq_id] = self._choose(seq_id, seq_id, arrivals)
        return arrivals

    def _prefill(self, prompts: Sequence[Sequence[int]], arrivals: Arrivals) -> list[int]:
        """The first token of every answer."""
        said = []
        for batch in _batches(prompts):
            self._fill(batch)
            self._decode()
            for row, (_, _, seq_id, is_last) in enumerate(batch):
                if is_last:
                    said.append(self._choose(seq_id, row, arrivals))
        return said

    def _fill(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        ids, positions, sequences, logits = batch.token, batch.pos, batch.seq_id, batch.logits
        for row, (token, position, seq_id, wants_logits) in enumerate(rows):
            ids[row] = token
            positions[row] = position
            sequences[row][0] = seq_id
            logits[row] = wants_logits
        batch.n_tokens = len(rows)

    def _decode(self) -> None:
        if failed := self._c.llama_decode(self._context, self._batch):
            raise SystemExit(f"llama_decode returned {failed}")

    def _choose(self, seq_id: int, row: int, arrivals: Arrivals) -> int:
        token = int(self._c.llama_sampler_sample(self._chains[seq_id], self._context, row))
        arrivals[seq_id].append(time.perf_counter())
        return token

    def _greedy(self) -> Any:
        params = self._c.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = self._c.llama_sampler_chain_init(params)
        self._c.llama_sampler_chain_add(chain, self._c.llama_sampler_init_greedy())
        return chain


def _batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, int, int, bool]]]:
    """All tokens of all prompts as (token, position, sequence, whether it is the prompt's last)."""
    rows = [
        (token, position, seq_id, position == len(prompt) - 1)
        for seq_id, prompt in enumerate(prompts)
        for position, token in enumerate(prompt)
    ]
    for begin in range(0, len(rows), _BATCH_TOKENS):
        yield rows[begin : begin + _BATCH_TOKENS]


if __name__ == "__main__":
    native = load_bindings()
    log = NativeLog(native)
    serve(_Bare(native, serving_argument()).generate)
