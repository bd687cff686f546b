"""The worker's other decisions: sampler chain, batch plan, control texts in a user's words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.prompt_pieces import Piece, Shield
from llm_worker_rbee.domain.sampling_params import Stage, sampler_stages
from rbee_shared.contracts.tasks import Sampling

CONTROLS = ["<s>", "<|end|>", "<|end|>x", ""]


@pytest.mark.parametrize(
    ("sampling", "names"),
    [
        pytest.param(Sampling(), ["top_k", "top_p", "min_p", "temp", "dist"], id="defaults"),
        pytest.param(Sampling(temperature=0), ["greedy"], id="greedy"),
        pytest.param(Sampling(temperature=0, repetition_penalty=1.2), ["penalties", "greedy"], id="greedy, penalised"),
        pytest.param(Sampling(top_k=0, top_p=1, min_p=0), ["temp", "dist"], id="whole distribution"),
        pytest.param(
            Sampling(typical_p=0.5, top_p=1, min_p=0), ["top_k", "min_p", "typical", "temp", "dist"], id="typical"
        ),
        pytest.param(
            Sampling(frequency_penalty=0.5), ["penalties", "top_k", "top_p", "min_p", "temp", "dist"], id="said"
        ),
        pytest.param(Sampling(presence_penalty=-1, temperature=0), ["penalties", "greedy"], id="presence"),
        pytest.param(Sampling(mirostat=1), ["temp", "mirostat"], id="mirostat replaces the filters"),
        pytest.param(Sampling(mirostat=2, logit_bias={3: 1.0}), ["logit_bias", "temp", "mirostat_v2"], id="biased"),
        pytest.param(Sampling(ignore_eos=True, temperature=0), ["logit_bias", "greedy"], id="no end"),
    ],
)
def test_sampler_stages(sampling: Sampling, names: list[str]) -> None:
    assert [stage.name for stage in sampler_stages(sampling, seed=7, ends=(2,))] == names


def test_the_values_reach_the_stages() -> None:
    sampling = Sampling(repetition_penalty=1.1, frequency_penalty=0.2, presence_penalty=0.3, mirostat=1)
    penalties, temperature, mirostat = sampler_stages(sampling, seed=7)

    assert penalties == Stage("penalties", (1.1, 0.2, 0.3))
    assert temperature == Stage("temp", (0.7,))
    assert mirostat == Stage("mirostat", (7, 5.0, 0.1, 100))
    assert sampler_stages(Sampling(), seed=7)[-1] == Stage("dist", (7,))


def test_a_bias_of_minus_100_and_an_ignored_end_are_never_chosen() -> None:
    sampling = Sampling(logit_bias={1: -100, 2: 5.5}, ignore_eos=True)

    assert sampler_stages(sampling, 7, ends=(2, 9))[0].biases == ((1, -math.inf), (2, -math.inf), (9, -math.inf))
    assert sampler_stages(Sampling(logit_bias={1: -99}), 7, ends=(2,))[0].biases == ((1, -99.0),)


@given(st.lists(st.sampled_from([*CONTROLS[:3], "a", "<", "|end|>", "\ue000", " "]), max_size=12).map("".join))
def test_control_texts_of_a_user_are_plain_text(words: str) -> None:
    shield = Shield(CONTROLS, secret="s3cr3t")
    rendered = f"<|user|>{shield.hide(words)}<|end|>"
    pieces = shield.pieces(rendered)

    assert "".join(piece.text for piece in pieces) == f"<|user|>{words}<|end|>"
    special = [piece.text for piece in pieces if piece.special]  # each is tokenized by itself
    assert sum(text.count("<|end|>") for text in special) == 1, "the template's own"
    assert not any("<s>" in text for text in special)


def test_words_without_control_texts_stay_in_one_piece() -> None:
    shield = Shield(CONTROLS, secret="s3cr3t")

    assert shield.pieces(shield.hide("hello <b>")) == (Piece("hello <b>", special=True),)
