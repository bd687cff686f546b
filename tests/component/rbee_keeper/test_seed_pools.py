"""The `pool` command lines of the oldest design document, word for word but for the program's present name.

`pool git …` is `pool update` now, and what was asked of a worker directly goes through the queen.
"""

import shlex

import pytest
from tests.support.keeper_lab import KeeperLab

EXAMPLE_1 = """
llorch pool models register --host mac.home.arpa --id llama3-8b --name "Llama 3 8B Instruct" \
  --repo "meta-llama/Meta-Llama-3-8B-Instruct" --architecture llama
llorch pool models download llama3-8b --host mac.home.arpa
llorch pool models catalog --host mac.home.arpa
llorch pool worker spawn metal --host mac.home.arpa --model llama3-8b --gpu 0
llorch pool worker list --host mac.home.arpa
"""
EXAMPLE_2 = """
llorch pool models download qwen-0.5b --host mac.home.arpa
llorch pool worker spawn metal --host mac.home.arpa --model qwen-0.5b --gpu 0
llorch pool models download llama3-8b --host pc.home.arpa
llorch pool worker spawn cuda --host pc.home.arpa --model llama3-8b --gpu 1
llorch pool worker spawn cpu --host pc.home.arpa --model tinyllama
llorch pool worker list --host pc.home.arpa
"""
EXAMPLE_3 = """
llorch pool update --host mac.home.arpa
llorch pool update --host pc.home.arpa
llorch pool worker stop-all --host mac.home.arpa
llorch pool worker stop-all --host pc.home.arpa
llorch pool worker spawn metal --host mac.home.arpa --model qwen-0.5b --gpu 0
llorch pool worker list --host mac.home.arpa
"""
REFERENCE = """
llorch pool status --host mac.home.arpa
llorch pool models list --host mac.home.arpa
llorch pool models unregister phi3 --host mac.home.arpa
llorch pool worker stop w1 --host mac.home.arpa
llorch pool worker spawn cuda-llm-worker-rbee --host pc.home.arpa --model mistral --gpu 1
llorch pool test --host mac.home.arpa
llorch pool test integration --host pc.home.arpa
"""


@pytest.mark.parametrize("walk", [EXAMPLE_1, EXAMPLE_2, EXAMPLE_3, REFERENCE])
def test_each_line_works(lab: KeeperLab, walk: str) -> None:
    lab.start_queen("--cluster")

    for line in walk.strip().splitlines():
        done = lab.keeper(*shlex.split(line)[1:])
        assert done.status == 0, f"{line}: {done.err}"
        assert done.out
