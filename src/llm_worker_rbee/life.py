"""A worker's life: bind, say where, load while already answering, serve until told to stop, drain, free, exit."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from llm_worker_rbee.domain.context_size import default_slots
from llm_worker_rbee.domain.engine_events import AnswerEvent, EngineEvent, ModelFacts
from llm_worker_rbee.engine_thread import EngineThread
from llm_worker_rbee.hive_client import HiveClient
from llm_worker_rbee.jobs import Jobs
from llm_worker_rbee.load_state import LoadState
from llm_worker_rbee.metrics import Metrics
from llm_worker_rbee.model_file import ModelFile
from llm_worker_rbee.services import Identity, Services
from llm_worker_rbee.settings import WorkerSettings
from llm_worker_rbee.stall import watch_engine
from rbee_shared.contracts.workers import WorkerHeartbeat, WorkerReady
from rbee_shared.daemon import Daemon
from rbee_shared.errors import ShuttingDownError, WorkerCrashedError
from rbee_shared.ids import new_worker_id
from rbee_shared.lease import Lease
from rbee_shared.narration import Narrator, correlation_id
from rbee_shared.server import bind, bind_first_free, serving, url_of
from rbee_shared.units import format_bytes, format_seconds

_LOG = logging.getLogger("rbee.worker")
_PORTS_TRIED = 1000
_FREE_S = 2.0
_LAST_FRAMES_S = 1.0


async def serve_model(daemon: Daemon, settings: WorkerSettings) -> None:
    """Run until stopped.

    Raises:
        PortInUseError, ModelInvalidError, ModelNotFoundError, BackendUnavailableError, InsufficientMemoryError: it
            cannot serve this model here. The process ends, its parent or operator is told.
    """
    listener = _bind(settings)
    url = url_of(listener)
    daemon.hub.announce("listening", url=url, instance=daemon.instance)
    worker = _Worker(daemon, settings, url)
    worker.start_engine()
    from llm_worker_rbee.app import create_app  # noqa: PLC0415 - heavy: the port is bound and the engine loads already

    app = create_app(worker.services)
    async with serving(app, listener, header_s=daemon.clocks.header_s, drain_s=_LAST_FRAMES_S):
        await worker.live()


def _bind(settings: WorkerSettings) -> socket.socket:
    """Exactly the named port by hand; the first free one from it upward in a cluster, where the URL is reported."""
    if settings.local_mode or settings.port == 0:
        return bind(settings.bind, settings.port)
    return bind_first_free(settings.bind, settings.port, _PORTS_TRIED)


class _Worker:
    """The parts of one worker, wired."""

    def __init__(self, daemon: Daemon, settings: WorkerSettings, url: str) -> None:
        self._daemon = daemon
        self._settings = settings
        self._url = url
        self._say = Narrator("llm-worker", daemon.hub.publish)
        engine = EngineThread(settings.load_request, settings.backend, settings.device)
        metrics = Metrics()
        self._changed: Callable[[], None] = lambda: None
        self.services = Services(
            identity=Identity(
                worker_id=settings.worker_id or new_worker_id(settings.backend),
                model_ref=settings.reference,
                instance=daemon.instance,
                api_key=daemon.handshake.api_key if daemon.handshake is not None else None,
            ),
            file=ModelFile(settings.model),
            engine=engine,
            load=LoadState(_size_bytes(settings)),
            jobs=Jobs(
                engine,
                slots=settings.slots or default_slots(settings.backend),
                line=settings.queue,
                metrics=metrics,
                on_change=self._state_changed,
            ),
            metrics=metrics,
            stopping=daemon.stopping,
            clocks=daemon.clocks,
        )

    def start_engine(self) -> None:
        """Load in the engine's thread; what it tells arrives on this event loop."""
        loop = asyncio.get_running_loop()

        def tell(events: list[EngineEvent]) -> None:
            try:
                loop.call_soon_threadsafe(self._hear, events)
            except RuntimeError:  # the loop is closed: the process is on its way out
                _LOG.debug("the engine spoke after the end")

        self.services.engine.start(tell)

    async def live(self) -> None:
        """Load, report, serve, until `stopping` is requested and everything is freed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_failure)
            tasks.start_soon(self._get_ready)
            tasks.start_soon(watch_engine, self.services)
            if (hive_url := self._settings.hive_url or self._handed_hive_url()) is not None:
                self._join_hive(tasks, hive_url)
            await self._daemon.stopping.requested.wait()
            await self._shut_down()
            tasks.cancel_scope.cancel()

    def _state_changed(self) -> None:
        self._changed()

    def _hear(self, events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, AnswerEvent):
                self.services.jobs.handle(event)
            else:
                self.services.load.handle(event)

    async def _watch_failure(self) -> None:
        error = await self.services.load.wait_failed()
        if self.services.load.model is not None:
            self.services.jobs.fail_all(WorkerCrashedError(error.message, source="llm-worker-rbee"))
            await anyio.lowlevel.checkpoint()  # the streams take their last frame
        raise error

    async def _get_ready(self) -> None:
        """Tell of the start, for the request that this worker was ordered for; set in this task's context only."""
        correlation_id.set(self._daemon.handshake.correlation_id if self._daemon.handshake is not None else None)
        self._say.tell("listening", f"HTTP server ready on :{self._url.rpartition(':')[2]}", cute="🌐", url=self._url)
        load = self.services.load
        device = await load.wait_device()
        say = self._say.speaking_as("device-manager")
        kind = "CPU device" if device.backend == "cpu" else f"{device.backend.upper()} device {device.index}"
        say.tell("initialized", f"initialized {kind} ({device.description})", cute="🖥️", device=device.id)
        say = self._say.speaking_as("model-loader")
        say.tell("loading", f"loading model {self._settings.model}", cute="📦")
        began_s = anyio.current_time()
        model = await load.wait_loaded()
        took = format_seconds(anyio.current_time() - began_s)
        say.tell("loaded", f"model loaded, {format_bytes(model.size_bytes)}", cute="✅", **_facts(model), took=took)
        if self._settings.n_ctx is not None and model.n_ctx > model.n_ctx_train * model.slots:
            say.tell(
                "context",
                f"more context than can be used: the model was trained for answers of {model.n_ctx_train} tokens, and "
                f"{model.slots} slots share {model.n_ctx}",
                level="warning",
            )
        if model.template_fault is not None:
            say.tell("template", f"{model.template_fault}; only raw prompts work", cute="⚠️", level="warning")
        self._say.tell("ready", "reporting ready", cute="🐝")
        self._changed()

    def _handed_hive_url(self) -> str | None:
        return self._daemon.handshake.hive_url if self._daemon.handshake is not None else None

    def _join_hive(self, tasks: anyio.abc.TaskGroup, hive_url: str) -> None:
        clocks = self._daemon.clocks
        lease = Lease(clocks.worker_lease_s)
        api_key = self.services.identity.api_key or ""
        hive = HiveClient(hive_url, api_key, lease=lease, clocks=clocks, stopping=self._daemon.stopping)
        self._changed = hive.state_changed
        tasks.start_soon(hive.report, self._heartbeat, self._ready)
        tasks.start_soon(self._watch_lease, lease)

    async def _watch_lease(self, lease: Lease) -> None:
        """The queen may still read an answer although the hive is gone: drained, not dropped."""
        await lease.expired()
        self._daemon.stopping.request(f"the hive has not answered for {lease.seconds:.0f} s")

    def _heartbeat(self) -> WorkerHeartbeat:
        services = self.services
        loading = services.load.model is None
        return WorkerHeartbeat(
            worker_id=services.identity.worker_id,
            state=services.state,
            url=self._url,
            slots_total=services.jobs.slots,
            slots_busy=services.jobs.busy,
            rss_bytes=services.rss_bytes(),
            last_activity=services.jobs.last_activity_s,
            narrated=self._daemon.hub.said,
            memory=services.load.model.memory if services.load.model is not None else None,
            load_done=services.load.per_mille if loading else None,
            engine_steps=services.engine.steps,
            answers_in_engine=services.jobs.in_engine,
        )

    def _ready(self) -> WorkerReady | None:
        services = self.services
        if services.load.model is None or services.load.device is None:
            return None
        return WorkerReady(
            worker_id=services.identity.worker_id,
            url=self._url,
            model_ref=services.identity.model_ref,
            backend=services.load.device.backend,
            device=services.load.device.id,
            narrated=self._daemon.hub.said,
            memory=services.load.model.memory,
        )

    async def _shut_down(self) -> None:
        """Drain what runs (nothing, when nobody is left to read it), free the memory."""
        stopping, clocks = self._daemon.stopping, self._daemon.clocks
        if stopping.abrupt:
            asyncio.get_running_loop().call_later(clocks.parent_lost_drain_s, os._exit, 0)
        say = partial(self._say.tell, correlation=stopping.correlation_id)
        say("stopping", "shutting down gracefully", cute="👋", reason=stopping.reason)
        self._changed()
        jobs = self.services.jobs
        with anyio.move_on_after(0 if stopping.abrupt else clocks.worker_drain_s):
            await jobs.wait_idle()
        jobs.fail_all(ShuttingDownError("the worker shut down before the answer was complete"))
        if (model := self.services.load.model) is not None:
            say("freeing", f"freeing {format_bytes(model.size_bytes)}", cute="🧹", size_bytes=model.size_bytes)
        freed = await anyio.to_thread.run_sync(self.services.engine.close, _FREE_S)
        say("exiting", "exiting", cute="🌙")
        if not freed:
            _LOG.warning("the engine does not return from llama.cpp: leaving without it")
            self._daemon.hub.close()
            os._exit(0)


def _facts(model: ModelFacts) -> dict[str, Any]:
    return {
        "name": model.name,
        "size_bytes": model.size_bytes,
        "parameters": model.n_params,
        "n_ctx": model.n_ctx,
        "n_ctx_answer": model.n_ctx_answer,
        "slots": model.slots,
        "memory": model.memory.model_dump(),
        "threads": model.threads,
        "chat_template": model.has_template,
    }


def _size_bytes(settings: WorkerSettings) -> int:
    try:
        return settings.model.stat().st_size
    except OSError:  # the engine says so, with the right code
        return 0
