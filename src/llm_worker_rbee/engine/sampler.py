"""llama.cpp's own sampler chain, built from stages."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llm_worker_rbee.domain.sampling_params import PENALTY_LAST_N, Stage


class Samplers:
    """Makes and frees chains."""

    def __init__(self, bindings: Any, *, n_vocab: int) -> None:
        self._c = bindings
        self._n_vocab = n_vocab
        c = bindings
        self._make: dict[str, Callable[..., Any]] = {
            "penalties": lambda *values: c.llama_sampler_init_penalties(n_vocab, PENALTY_LAST_N, *values),
            "top_k": lambda k: c.llama_sampler_init_top_k(int(k)),
            "typical": lambda p: c.llama_sampler_init_typical(p, 1),
            "top_p": lambda p: c.llama_sampler_init_top_p(p, 1),
            "min_p": lambda p: c.llama_sampler_init_min_p(p, 1),
            "temp": c.llama_sampler_init_temp,
            "dist": lambda seed: c.llama_sampler_init_dist(int(seed)),
            "mirostat": lambda seed, tau, eta, m: c.llama_sampler_init_mirostat(n_vocab, int(seed), tau, eta, int(m)),
            "mirostat_v2": lambda seed, tau, eta: c.llama_sampler_init_mirostat_v2(int(seed), tau, eta),
            "greedy": c.llama_sampler_init_greedy,
        }

    def chain(self, stages: Iterable[Stage], said: Sequence[int]) -> Any:
        """A chain of `stages`. `said`: the tokens so far, for the penalties."""
        params = self._c.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = self._c.llama_sampler_chain_init(params)
        for stage in stages:
            self._c.llama_sampler_chain_add(chain, self._sampler(stage))
            if stage.name == "penalties":
                for token in said[-PENALTY_LAST_N:]:
                    self._c.llama_sampler_accept(chain, token)
        return chain

    def free(self, chain: Any) -> None:
        self._c.llama_sampler_free(chain)

    def _sampler(self, stage: Stage) -> Any:
        if stage.name != "logit_bias":
            return self._make[stage.name](*stage.values)
        biases = (self._c.llama_logit_bias * len(stage.biases))(*stage.biases)  # copied by llama.cpp
        return self._c.llama_sampler_init_logit_bias(self._n_vocab, len(stage.biases), biases)
