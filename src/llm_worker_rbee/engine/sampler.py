"""llama.cpp's own sampler chain, built from stages."""

from collections.abc import Callable, Iterable
from typing import Any

from llm_worker_rbee.domain.sampling_params import PENALTY_LAST_N, Stage


class Samplers:
    """Makes and frees chains."""

    def __init__(self, bindings: Any, *, n_vocab: int) -> None:
        self._c = bindings
        c = bindings
        self._make: dict[str, Callable[[float], Any]] = {
            "penalties": lambda value: c.llama_sampler_init_penalties(n_vocab, PENALTY_LAST_N, value, 0.0, 0.0),
            "top_k": lambda value: c.llama_sampler_init_top_k(int(value)),
            "top_p": lambda value: c.llama_sampler_init_top_p(value, 1),
            "min_p": lambda value: c.llama_sampler_init_min_p(value, 1),
            "temp": c.llama_sampler_init_temp,
            "dist": lambda value: c.llama_sampler_init_dist(int(value)),
            "greedy": lambda _: c.llama_sampler_init_greedy(),
        }

    def chain(self, stages: Iterable[Stage], prompt: tuple[int, ...]) -> Any:
        """A chain of `stages`. The end of the prompt counts as said, for the repetition penalty."""
        params = self._c.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = self._c.llama_sampler_chain_init(params)
        for stage in stages:
            self._c.llama_sampler_chain_add(chain, self._make[stage.name](stage.value))
            if stage.name == "penalties":
                for token in prompt[-PENALTY_LAST_N:]:
                    self._c.llama_sampler_accept(chain, token)
        return chain

    def free(self, chain: Any) -> None:
        self._c.llama_sampler_free(chain)
