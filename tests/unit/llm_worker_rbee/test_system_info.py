"""What llama.cpp says it was compiled with, read from the line it prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.system_info import features


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | ", ("SSE3", "AVX2", "OPENMP"), id="cpu"),
        pytest.param(
            "CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : AVX2 = 1 | ",
            ("CUDA:ARCHS=890", "CUDA:USE_GRAPHS", "AVX2"),
            id="cuda",
        ),
        pytest.param("CPU : NEON = 1 | SVE_CNT = 16 | NEON = 1 |", ("NEON", "SVE_CNT=16"), id="said twice"),
        pytest.param("", (), id="nothing"),
        pytest.param("|||", (), id="only bars"),
        pytest.param("plain", ("plain",), id="another form"),
    ],
)
def test_switches_that_are_on_are_named(line: str, expected: tuple[str, ...]) -> None:
    assert features(line) == expected


@given(st.text())
def test_any_text_gives_names_without_repeats(line: str) -> None:
    found = features(line)
    assert len(found) == len(set(found))
    assert all(found)
