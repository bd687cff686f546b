"""The thread that owns model and context. Orders go in through a queue, one list of events per step comes out.

Nothing in here waits for the event loop, and the event loop waits for nothing in here: it is told. `steps` grows with
every decode step; whoever watches it sees a standstill from outside.
"""

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from llm_worker_rbee.domain.engine_events import DeviceReady, EngineEvent, EngineFailed, Loaded, LoadProgress, Order
from llm_worker_rbee.engine.request import LoadRequest
from rbee_shared.contracts.tasks import ExecuteRequest
from rbee_shared.errors import InternalError, NotReadyError, RbeeError

if TYPE_CHECKING:
    # loaded in the engine's thread, beside the HTTP server's own imports
    from llm_worker_rbee.engine.generator import Generator
    from llm_worker_rbee.engine.library import NativeLog
    from llm_worker_rbee.engine.loading import LoadedModel

_LOG = logging.getLogger("rbee.engine")
_PER_MILLE = 1000
# the engine needs the interpreter back after each decode: with the default 5 ms it would wait that long for the loop
_SWITCH_INTERVAL_S = 0.0005

_Close = Literal["close"]


class EngineThread:
    """Made, then `start`ed once, then `close`d. All methods but `start` may be called from any thread."""

    def __init__(self, request: LoadRequest, backend: str, device: str) -> None:
        self._request = request
        self._backend = backend
        self._device = device
        self._orders: queue.SimpleQueue[Order | int | _Close] = queue.SimpleQueue()
        self._tell: Callable[[list[EngineEvent]], None] = lambda _: None
        self._model: LoadedModel | None = None
        self._log: NativeLog | None = None
        self._readers = 0  # the model must not be freed while somebody tokenizes with it
        self._left = threading.Condition()
        self._closing = False
        # a daemon thread: one that is stuck in C code must not keep the process from exiting
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.steps = 0
        self.kv_cells_used = 0

    def start(self, tell: Callable[[list[EngineEvent]], None]) -> None:
        """Load, then generate. `tell` is called in the engine's thread, with all that happened in one step."""
        self._tell = tell
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Begin an answer; there must be a free slot."""
        self._orders.put(order)

    def cancel(self, key: int) -> None:
        """End an answer before its next token. Its `Finished` follows."""
        self._orders.put(key)

    def prepare(self, request: ExecuteRequest, key: int) -> Order:
        """The order for a request. Blocking; for any thread but the event loop's.

        Raises:
            InvalidRequestError, ContextOverflowError: see `engine.preparing`.
            NotReadyError: there is no model in memory.
        """
        from llm_worker_rbee.engine.preparing import prepare  # noqa: PLC0415 - brings Jinja in, after the start

        with self._reading() as model:
            return prepare(request, key, model)

    def close(self, timeout_s: float) -> bool:
        """Drop what runs and free the memory. Blocking; False when the thread is stuck in C code."""
        self._closing = True
        self._orders.put("close")
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._load()
            self._generate()
        except RbeeError as error:
            if not self._closing:  # a load that was given up fails, and nobody wants to know
                self._tell([EngineFailed(error)])
        except BaseException as error:  # noqa: BLE001 - its death must be told, also of a panic in a native library
            _LOG.exception("the engine died")
            self._tell([EngineFailed(InternalError(f"the engine died: {type(error).__name__}: {error}"))])
        finally:
            self._free()

    def _load(self) -> None:
        from llm_worker_rbee.engine.devices import Devices  # noqa: PLC0415 - see above
        from llm_worker_rbee.engine.library import NativeLog, load_bindings, load_ggml  # noqa: PLC0415
        from llm_worker_rbee.engine.loading import load_model, require_gguf  # noqa: PLC0415

        require_gguf(self._request.path)
        bindings = load_bindings()
        log = self._log = NativeLog(bindings)
        devices = Devices(bindings, load_ggml())
        device = devices.choose(self._backend, self._device)
        self._tell([DeviceReady(device)])
        told = -1

        def progress(share: float) -> bool:
            nonlocal told
            if (per_mille := int(share * _PER_MILLE)) > told:
                told = per_mille
                self._tell([LoadProgress(per_mille)])
            return not self._closing

        self._model = load_model(bindings, log, devices, device, self._request, progress)
        self._tell([Loaded(self._model.facts)])

    def _generate(self) -> None:
        from llm_worker_rbee.engine.generator import Generator  # noqa: PLC0415 - see above

        assert self._model is not None
        generator = Generator(self._model, prefill_chunk=self._request.prefill_chunk)
        try:
            while not self._closing:
                self._take_orders(generator)
                if generator.busy:
                    events = generator.step()
                    self.steps += 1
                    self.kv_cells_used = generator.slots.cells_used
                    if events:
                        self._tell(events)
        finally:
            generator.drop_all()

    def _take_orders(self, generator: "Generator") -> None:
        """All that is there; waits for one when there is nothing to do."""
        while not self._closing:
            if generator.busy and self._orders.empty():
                return
            order = self._orders.get()
            if isinstance(order, Order):
                generator.add(order)
            elif isinstance(order, int):
                generator.cancel(order)

    @contextmanager
    def _reading(self) -> "Iterator[LoadedModel]":
        with self._left:
            if self._model is None:
                raise NotReadyError("there is no model in memory")
            model = self._model
            self._readers += 1
        try:
            yield model
        finally:
            with self._left:
                self._readers -= 1
                self._left.notify_all()

    def _free(self) -> None:
        with self._left:
            model, self._model = self._model, None
            self._left.wait_for(lambda: not self._readers)
        if model is not None:
            model.free()
        if self._log is not None:
            self._log.close()
