"""How the next token is chosen: a request's values as the stages of llama.cpp's sampler chain, in llama.cpp's order.

Pure. Values come validated from the contract; a stage that would change nothing is left out.
"""

from dataclasses import dataclass
from typing import Literal

from rbee_shared.contracts.tasks import Sampling

PENALTY_LAST_N = 64
"""Tokens that the repetition penalty looks back at: llama.cpp's own default."""

StageName = Literal["penalties", "top_k", "top_p", "min_p", "temp", "dist", "greedy"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One sampler of the chain with its arguments."""

    name: StageName
    value: float = 0.0


def sampler_stages(sampling: Sampling, seed: int) -> tuple[Stage, ...]:
    """The chain for `sampling`; `seed` is used unless temperature 0 makes it greedy."""
    stages = []
    if sampling.repetition_penalty != 1.0:
        stages.append(Stage("penalties", sampling.repetition_penalty))
    if sampling.temperature == 0.0:
        return (*stages, Stage("greedy"))
    if sampling.top_k > 0:
        stages.append(Stage("top_k", sampling.top_k))
    if sampling.top_p < 1.0:
        stages.append(Stage("top_p", sampling.top_p))
    if sampling.min_p > 0.0:
        stages.append(Stage("min_p", sampling.min_p))
    return (*stages, Stage("temp", sampling.temperature), Stage("dist", seed))
