"""The worker's other decisions: sampler chain, batch plan, control texts in a user's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.batch_plan import plan
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
    ],
)
def test_sampler_stages(sampling: Sampling, names: list[str]) -> None:
    assert [stage.name for stage in sampler_stages(sampling, seed=7)] == names


def test_the_seed_reaches_the_last_stage() -> None:
    assert sampler_stages(Sampling(), seed=7)[-1] == Stage("dist", 7)


@pytest.mark.parametrize(
    ("waiting", "step"),
    [
        pytest.param([], [], id="nothing to do"),
        pytest.param([(0, 1)], [(0, 1)], id="one that generates"),
        pytest.param([(0, 1000)], [(0, 8)], id="a prompt in chunks"),
        pytest.param([(2, 1), (0, 1000), (1, 1)], [(0, 6), (1, 1), (2, 1)], id="generating ones first, ordered by id"),
        pytest.param([(0, 5), (1, 5)], [(0, 5), (1, 3)], id="prompts share"),
        pytest.param([(0, 8), (1, 5)], [(0, 8)], id="no room left"),
    ],
)
def test_plan(waiting: list[tuple[int, int]], step: list[tuple[int, int]]) -> None:
    assert plan(waiting, chunk_tokens=8) == step


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
