"""The worker's engine thread without the worker: orders in, events out, in a process of its own."""

import queue
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

_LOAD_S = 600.0
_ANSWERS_S = 600.0


class _Alone:
    """The thread, and what it tells: all of a step with the time at which it told."""

    def __init__(self, serving: Serving) -> None:
        self._told: queue.SimpleQueue[tuple[float, list[EngineEvent]]] = queue.SimpleQueue()
        self._keys = count(1)
        request = LoadRequest(
            path=serving.model,
            n_ctx=serving.n_ctx,
            slots=serving.slots,
            is_unified=serving.kv == "unified",
            threads=serving.threads,
        )
        self._engine = EngineThread(request, "cpu", "0")
        self._engine.start(lambda events: self._told.put((time.perf_counter(), events)))
        while not any(isinstance(event, Loaded) for event in self._next_step(_LOAD_S)[1]):
            pass

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Arrivals:
        """Every answer to its full length."""
        keys = {next(self._keys): index for index in range(len(prompts))}
        arrivals: Arrivals = [[] for _ in prompts]
        for key, index in keys.items():
            self._engine.submit(_order(key, prompts[index], tokens))
        running = set(keys)
        while running:
            now_s, events = self._next_step(_ANSWERS_S)
            for event in events:
                if isinstance(event, Emitted):
                    arrivals[keys[event.key]] += [now_s] * len(event.ids)
                elif isinstance(event, Finished):
                    running.discard(event.key)
        return arrivals

    def _next_step(self, within_s: float) -> tuple[float, list[EngineEvent]]:
        try:
            now_s, events = self._told.get(timeout=within_s)
        except queue.Empty:
            raise SystemExit(f"the engine has said nothing for {within_s:.0f} s") from None
        for event in events:
            if isinstance(event, EngineFailed | Failed):
                raise SystemExit(f"the engine failed: {event.error}")
        return now_s, events


def _order(key: int, prompt: Sequence[int], tokens: int) -> Order:
    prepared = Prepared(prompt=tuple(prompt), text=AnswerText(()))
    return Order(key=key, prepared=prepared, stages=(Stage("greedy"),), max_tokens=tokens)


if __name__ == "__main__":
    serve(_Alone(serving_argument()).generate)
