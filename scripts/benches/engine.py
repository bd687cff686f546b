"""Many streams at once: a bare decode loop, the engine thread alone, the worker over HTTP, another server.

Tokens per second, time to first token, longest gap, memory; gaps while a long prompt is read, and what a conversation
of ten turns costs. Everybody serves the same file with the same context and takes turns in the same run. Missing a
target is said in the tables; the exit status tells only whether it could be measured.
"""

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

from engine_bench.chat import ChatResult, chat_serving, measure_chat
from engine_bench.line_up import cells, servers, starters
from engine_bench.options import Options, parse_options
from engine_bench.report import MEANING, Result, show
from engine_bench.stall import StallResult, measure_stall, stall_serving
from engine_bench.throughput import CellResult, measure
from measuring import machine, machine_line

_STALL_SHAPE = "mid"
_TERMINATED = 128 + signal.SIGTERM
_ONE_CELL = (1,)  # these have streams of their own


def main() -> None:
    """Measure, print."""
    options = parse_options(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # servers in groups of their own must end with us
    facts: dict[str, Any] = {"machine": machine(), "threads": options.threads, "cells": [], "stall": [], "chat": []}
    if not options.as_json:
        print(f"{machine_line(facts['machine'])}\n{MEANING}\n", flush=True)
    sections: dict[str, Iterator[Result]] = {
        "cells": _throughput(options),
        "stall": _stall(options),
        "chat": _chat(options),
    }
    for name, results in sections.items():
        for result in results:
            facts[name].append(result.facts())
            if not options.as_json:
                show(result)
    if options.as_json:
        print(json.dumps(facts, indent=2))


def _throughput(options: Options) -> Iterator[CellResult]:
    for cell in cells(options, options.shapes, options.streams):
        if parties := starters(options, cell.kv):
            yield measure(cell, parties, options.rounds, with_memory="rss" in options.only)


def _stall(options: Options) -> Iterator[StallResult]:
    for cell in cells(options, [_STALL_SHAPE] if "stall" in options.only else [], _ONE_CELL):
        for name, start in servers(options, cell.kv).items():
            with start(stall_serving(cell)) as server:
                rounds = tuple(measure_stall(server, seed) for seed in range(1, options.rounds + 1))
            yield StallResult(name, cell.kv, rounds)


def _chat(options: Options) -> Iterator[ChatResult]:
    for cell in cells(options, options.shapes if "chat" in options.only else [], _ONE_CELL):
        for name, start in servers(options, cell.kv).items():
            with start(chat_serving(cell)) as server:
                result = measure_chat(server, cell, name, options.rounds)
            yield result


if __name__ == "__main__":
    main()
