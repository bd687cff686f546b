"""The worker's engine thread without the worker: orders in, events out, in a process of its own."""

import threading
import time
from collections.abc import Sequence
from itertools import count

from engine_bench.child import Arrivals, serve, serving_argument
from engine_bench.serving import Serving
from llm_worker_rbee.domain.detokenize import AnswerText
from llm_worker_rbee.domain.engine_events import (
    Emitted,
    EngineEvent,
    EngineFailed,
    Failed,
    Finished,
    Loaded,
    Order,
    Prepared,
)
from llm_worker_rbee.domain.sampling_params import Stage
from llm_worker_rbee.engine.request import LoadRequest
from llm_worker_rbee.engine_thread import EngineThread

_PATIENCE_S = 900.0
_LAST = (Loaded, Finished, Failed, EngineFailed)


class _Alone:
    """The thread, and what it tells, noted in the thread itself: another one would take a core from the computing."""

    def __init__(self, serving: Serving) -> None:
        self._told: list[tuple[float, list[EngineEvent]]] = []
        self._awaited = 1
        self._all_came = threading.Event()
        self._keys = count(1)
        request = LoadRequest(
            path=serving.model,
            n_ctx=serving.n_ctx,
            slots=serving.slots,
            is_unified=serving.kv == "unified",
            threads=serving.threads,
        )
        self._engine = EngineThread(request, "cpu", "0")
        self._engine.start(self._hear)
        self._wait()

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Arrivals:
        """Every answer to its full length."""
        self._told.clear()
        self._all_came.clear()
        self._awaited = len(prompts)
        keys = {next(self._keys): index for index in range(len(prompts))}
        arrivals: Arrivals = [[] for _ in prompts]
        for key, index in keys.items():
            self._engine.submit(_order(key, prompts[index], tokens))
        self._wait()
        for now_s, events in self._told:
            for event in events:
                if isinstance(event, Emitted):
                    arrivals[keys[event.key]] += [now_s] * len(event.ids)
        return arrivals

    def _hear(self, events: list[EngineEvent]) -> None:
        self._told.append((time.perf_counter(), events))
        for event in events:
            if isinstance(event, _LAST):
                self._awaited -= 1
                if not self._awaited or isinstance(event, EngineFailed):
                    self._all_came.set()

    def _wait(self) -> None:
        if not self._all_came.wait(_PATIENCE_S):
            raise SystemExit(f"the engine has not finished within {_PATIENCE_S:.0f} s")
        for _, events in self._told:
            for event in events:
                if isinstance(event, EngineFailed | Failed):
                    raise SystemExit(f"the engine failed: {event.error}")


def _order(key: int, prompt: Sequence[int], tokens: int) -> Order:
    prepared = Prepared(prompt=tuple(prompt), text=AnswerText(()))
    return Order(key=key, prepared=prepared, stages=(Stage("greedy"),), max_tokens=tokens)


if __name__ == "__main__":
    serve(_Alone(serving_argument()).generate)
