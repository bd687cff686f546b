"""A child process that generates without HTTP: a JSON line with prompts in, one with the times of their tokens out."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine_bench.serving import Serving

Arrivals = list[list[float]]
"""For each prompt the times at which its tokens came, one by one."""

Generate = Callable[[Sequence[Sequence[int]], int], Arrivals]
"""Prompts in tokens, and how many tokens each answer gets."""


def serving_argument() -> Serving:
    """What the command line asks for."""
    facts = json.loads(sys.argv[1])
    return Serving(**{**facts, "model": Path(facts["model"])})


def serve(generate: Generate) -> None:
    """Say that the model is there, then answer line by line until stdin ends."""
    _tell({"ready": True})
    for line in sys.stdin:
        ask = json.loads(line)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        arrivals = generate(ask["prompts"], ask["tokens"])
        _tell(
            {
                "wall_s": time.perf_counter() - began_s,
                "cpu_s": time.process_time() - cpu_s,
                "streams": [{"sent_s": began_s, "at_s": at_s, "frames": [1] * len(at_s)} for at_s in arrivals],
            }
        )


def _tell(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)
