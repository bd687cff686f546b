"""How the next token is chosen: a request's values as the stages of llama.cpp's sampler chain, in llama.cpp's order.

Pure. Values come validated from the contract; a stage that would change nothing is left out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rbee_shared.contracts.tasks import Sampling

PENALTY_LAST_N = 64
"""Tokens that the penalties look back at: llama.cpp's own default."""

BANNED = -100.0
"""A logit bias that means never."""

_NO_CHANCE = 1e-30
"""As `min_p` it drops what has no probability in single precision anyway, of which `typical` would make NaN."""

_MIROSTAT_CANDIDATES = 100

StageName = Literal[
    "logit_bias", "penalties", "top_k", "typical", "top_p", "min_p", "temp", "dist", "mirostat", "mirostat_v2", "greedy"
]


@dataclass(frozen=True, slots=True)
class Stage:
    """One sampler of the chain with its arguments, in the order of llama.cpp's function for it."""

    name: StageName
    values: tuple[float, ...] = ()
    biases: tuple[tuple[int, float], ...] = ()


def sampler_stages(sampling: Sampling, seed: int, ends: Iterable[int] = ()) -> tuple[Stage, ...]:
    """The chain for `sampling`. `seed`: unused at temperature 0, which is greedy; `ends`: tokens that end an answer."""
    stages = []
    if biases := _biases(sampling.logit_bias, ends if sampling.ignore_eos else ()):
        stages.append(Stage("logit_bias", biases=biases))
    penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        stages.append(Stage("penalties", penalties))
    if sampling.temperature == 0.0:
        return (*stages, Stage("greedy"))
    if sampling.mirostat:
        return (*stages, Stage("temp", (sampling.temperature,)), _mirostat(sampling, seed))
    return (*stages, *_filters(sampling), Stage("temp", (sampling.temperature,)), Stage("dist", (seed,)))


def _biases(wanted: Mapping[int, float], banned: Iterable[int]) -> tuple[tuple[int, float], ...]:
    biases = {token: -math.inf if bias <= BANNED else bias for token, bias in wanted.items()}
    return tuple((biases | dict.fromkeys(banned, -math.inf)).items())


def _filters(sampling: Sampling) -> list[Stage]:
    stages = []
    if sampling.top_k > 0:
        stages.append(Stage("top_k", (sampling.top_k,)))
    if sampling.typical_p < 1.0:
        stages += [Stage("min_p", (_NO_CHANCE,)), Stage("typical", (sampling.typical_p,))]
    if sampling.top_p < 1.0:
        stages.append(Stage("top_p", (sampling.top_p,)))
    if sampling.min_p > 0.0:
        stages.append(Stage("min_p", (sampling.min_p,)))
    return stages


def _mirostat(sampling: Sampling, seed: int) -> Stage:
    learning = (sampling.mirostat_tau, sampling.mirostat_eta)
    if sampling.mirostat == 1:
        return Stage("mirostat", (seed, *learning, _MIROSTAT_CANDIDATES))
    return Stage("mirostat_v2", (seed, *learning))
