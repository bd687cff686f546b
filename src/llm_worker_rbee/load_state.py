"""How far the load is: told by the engine, awaited by the daemon's body, followed by any number of readers."""

from collections.abc import AsyncGenerator

import anyio

from llm_worker_rbee.domain.engine_events import (
    Device,
    DeviceReady,
    EngineFailed,
    Loaded,
    LoadEvent,
    LoadProgress,
    ModelFacts,
)
from rbee_shared import sse
from rbee_shared.errors import RbeeError

_PER_MILLE = 1000
_FRAME_EVERY_S = 0.1  # the engine tells of every tensor: up to thousands a second


class LoadState:
    """On the event loop only."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._changed = anyio.Event()
        self._over = anyio.Event()
        self.per_mille = 0
        self.device: Device | None = None
        self.model: ModelFacts | None = None
        self.failure: RbeeError | None = None

    def handle(self, event: LoadEvent) -> None:
        """Take what concerns the load."""
        match event:
            case DeviceReady(device):
                self.device = device
            case LoadProgress(per_mille):
                self.per_mille = max(self.per_mille, per_mille)
            case Loaded(model):
                self.per_mille, self.model = _PER_MILLE, model
                self._over.set()
            case EngineFailed(error):
                self.failure = error
                self._over.set()
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_device(self) -> Device:
        """The device, once the engine has it.

        Raises:
            RbeeError: the engine's own failure.
        """
        while self.device is None:
            await self._next_change()
        return self.device

    async def wait_loaded(self) -> ModelFacts:
        """The model, once it has decoded a token.

        Raises:
            RbeeError: the engine's own failure.
        """
        while self.model is None:
            await self._next_change()
        return self.model

    async def wait_failed(self) -> RbeeError:
        """The engine's failure, whenever it comes."""
        while self.failure is None:
            await self._changed.wait()
        return self.failure

    async def follow(self, ping_s: float) -> AsyncGenerator[bytes]:
        """The `progress` events of the load from now to its `end` or `error`: as it changes, at most ten a second."""
        while not self._over.is_set():
            changed = self._changed
            yield self._progress()
            with anyio.move_on_after(_FRAME_EVERY_S):
                await self._over.wait()
            while not changed.is_set():
                with anyio.move_on_after(ping_s):
                    await changed.wait()
                if not changed.is_set():
                    yield sse.PING
        if self.failure is not None:
            yield sse.encode("error", self.failure.body()) + sse.DONE
            return
        yield self._progress() + sse.encode("end", {"stage": "load"}) + sse.DONE

    def _progress(self) -> bytes:
        done = self._total_bytes * self.per_mille // _PER_MILLE
        return sse.encode("progress", {"stage": "load", "done": done, "total": self._total_bytes, "unit": "bytes"})

    async def _next_change(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self._changed.wait()
