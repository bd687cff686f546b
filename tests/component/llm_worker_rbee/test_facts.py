"""What a worker tells of itself, from real loads: memory by part, progress in bytes, use of its cache.

The first tests fail when the wording of llama.cpp's load log has moved.
"""

import ctypes
import queue
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.fake_hive import fake_hive
from tests.support.random_gguf import Shape, write_random
from tests.support.scripted_gguf import Script, write_scripted
from tests.support.worker import STORYTELLER, RunningWorker, worker_process

from llm_worker_rbee.domain.backend_proof import why_not_used
from llm_worker_rbee.domain.engine_events import Device, EngineEvent, EngineFailed, Loaded, LoadProgress
from llm_worker_rbee.domain.load_log import LoadReport
from llm_worker_rbee.engine.library import NativeLog, load_bindings
from llm_worker_rbee.engine.request import LoadRequest
from llm_worker_rbee.engine_thread import EngineThread
from rbee_shared.sse import FrameSplitter

pytestmark = pytest.mark.allow_blocking("the test loads models itself, or starts the process that does")

MIB = 1024 * 1024
N_CTX = 1024
ROUNDING_BYTES = 8 * 1024  # the log gives MiB with two decimals
BIG = Shape(width=1024, layers=8, heads=16, heads_kv=8, feed_forward=2816)  # F16: 193 MB
CPU = Device("cpu", "cpu", 0, "")


@dataclass
class Native:
    """The library, and what it says."""

    bindings: Any
    log: NativeLog

    def load(self, path: Path, *, load_mode: int) -> tuple[LoadReport, int]:
        """A model with a context of `N_CTX` tokens, freed again: the report, and the KV bytes that its shape needs."""
        c = self.bindings
        self.log.begin_load()
        devices = (ctypes.c_void_p * 1)(None)
        params = c.llama_model_default_params()
        params.devices, params.n_gpu_layers = ctypes.cast(devices, ctypes.c_void_p), 0
        params.load_mode = load_mode
        model = c.llama_model_load_from_file(str(path).encode(), params)
        assert model, self.log.why()
        context_params = c.llama_context_default_params()
        context_params.n_ctx, context_params.n_seq_max, context_params.kv_unified = N_CTX, 4, True
        context = c.llama_init_from_model(model, context_params)
        assert context, self.log.why()
        report = self.log.end_load()
        head_dim = c.llama_model_n_embd(model) // c.llama_model_n_head(model)
        kv_bytes = 2 * c.llama_model_n_layer(model) * N_CTX * c.llama_model_n_head_kv(model) * head_dim * 2
        c.llama_free(context)
        c.llama_model_free(model)
        return report, int(kv_bytes)


@pytest.fixture(scope="module")
def native() -> Generator[Native]:
    bindings = load_bindings()
    bindings.llama_backend_init()
    yield Native(bindings, NativeLog(bindings))
    bindings.llama_log_set(bindings.llama_log_callback(), None)  # ours is about to be collected


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("models") / "big.gguf", BIG)


def _model(path: Path, kind: str) -> Path:
    if kind == "storyteller":
        return STORYTELLER
    if kind == "scripted":
        return write_scripted(path / "scripted.gguf", Script(b"abc"))
    return write_random(path / f"{kind}.gguf", Shape(width=512, layers=4, heads=8, heads_kv=4, kind=kind))


@pytest.mark.parametrize("kind", ["storyteller", "scripted", "F16", "Q8_0", "Q4_0"])
def test_memory_by_part_of_a_real_load(native: Native, tmp_path: Path, kind: str) -> None:
    path = _model(tmp_path, kind)
    report, kv_bytes = native.load(path, load_mode=native.bindings.LLAMA_LOAD_MODE_NONE)
    memory = report.memory

    assert 0.9 <= memory.weights_bytes / path.stat().st_size <= 1.01, "the file without its vocabulary"
    assert abs(memory.kv_bytes - kv_bytes) <= ROUNDING_BYTES
    assert MIB / 4 <= memory.compute_bytes <= 256 * MIB
    assert why_not_used(CPU, report) is None
    assert why_not_used(Device("cuda:0", "cuda", 0, ""), report) == "no weights lie on cuda:0"


def test_a_file_that_is_mapped_is_counted_too(native: Native) -> None:
    mapped, _ = native.load(STORYTELLER, load_mode=native.bindings.LLAMA_LOAD_MODE_MMAP)

    assert 0.9 <= mapped.memory.weights_bytes / STORYTELLER.stat().st_size <= 1.01
    assert {buffer.name for buffer in mapped.buffers if buffer.part == "weights"} == {"CPU_Mapped"}


def test_each_load_has_its_own_report_and_nothing_is_kept_between(native: Native) -> None:
    first, _ = native.load(STORYTELLER, load_mode=native.bindings.LLAMA_LOAD_MODE_NONE)
    again, _ = native.load(STORYTELLER, load_mode=native.bindings.LLAMA_LOAD_MODE_NONE)

    assert first == again
    assert native.log.end_load() == LoadReport((), None)


def test_a_failed_load_has_its_reason(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(STORYTELLER.read_bytes()[:100_000])
    native.log.begin_load()
    assert not native.bindings.llama_model_load_from_file(
        str(path).encode(), native.bindings.llama_model_default_params()
    )

    assert native.log.end_load() == LoadReport((), None)
    assert native.log.why() not in {"", "llama.cpp gave no reason"}


async def _metrics(worker: RunningWorker) -> dict[str, float]:
    text = (await worker.client.get("/metrics")).text
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_memory_reaches_the_hive_health_and_metrics(tmp_path: Path) -> None:
    async with fake_hive() as hive, worker_process(tmp_path, hive_url=hive.url) as worker:
        await worker.until_ready()
        await hive.until(lambda hive: hive.of("/v1/workers/ready") and hive.states[-1:] == ["idle"])
        health = await worker.health()
        metrics = await _metrics(worker)
        (ready,) = hive.of("/v1/workers/ready")
        beats = hive.of("/v1/heartbeat/workers")

    memory = health["memory"]
    assert set(memory) == {"weights_bytes", "kv_bytes", "compute_bytes"}
    assert all(size > 0 for size in memory.values())
    assert ready["memory"] == memory
    assert next(beat["memory"] for beat in beats if beat["state"] == "idle") == memory
    assert all(beat["memory"] is None for beat in beats if beat["state"] == "loading")
    assert [metrics[f"rbee_worker_memory_bytes{{{part}}}"] for part in ("weights", "kv", "compute")] == list(
        memory.values()
    )
    assert sum(memory.values()) <= health["rss_bytes"] + MIB


async def test_the_cache_s_use_and_what_it_saved(worker: RunningWorker) -> None:
    before = await _metrics(worker)
    first = await worker.execute(prompt="Once upon a time there was a bee", max_tokens=4, temperature=0)
    again = await worker.execute(prompt="Once upon a time there was a bee", max_tokens=4, temperature=0)
    after = await _metrics(worker)
    grown = {name.removeprefix("rbee_worker_"): after[name] - before[name] for name in after}
    health = await worker.health()

    assert again.end["cached_tokens"] > 0
    assert again.ids == first.ids
    assert grown["cached_tokens_total"] == first.end["cached_tokens"] + again.end["cached_tokens"]
    assert grown["cache_hits_total"] + grown["cache_misses_total"] == 2
    assert grown["cache_hits_total"] >= 1
    assert grown["ttft_seconds_count"] == grown["queue_wait_seconds_count"] == 2
    frames = len(first.of("token")) + len(again.of("token"))
    assert grown["inter_token_seconds_count"] == frames - 2
    assert after["rbee_worker_waiting"] == after["rbee_worker_slots_busy"] == 0
    assert health["kv_cells"] == after["rbee_worker_kv_cells"] >= health["kv_cells_used"] > 0


async def test_the_progress_of_a_big_load_ends(tmp_path: Path, big: Path) -> None:
    splitter, size = FrameSplitter(), (await anyio.Path(big).stat()).st_size
    async with worker_process(tmp_path, "--n-ctx", "256", model=big) as worker:
        response = await worker.client.get("/v1/loading/progress")
        frames = splitter.feed(response.content)
        progress = [frame.json() for frame in frames if frame.event == "progress"]

    done = [one["done"] for one in progress]
    assert done == sorted(done)
    assert done[-1] == size
    assert {(one["stage"], one["unit"], one["total"]) for one in progress} == {("load", "bytes", size)}
    assert [frame.event for frame in frames][-2:] == ["end", "message"]


@pytest.mark.skipif(not hasattr(psutil.Process(), "io_counters"), reason="the system does not count a process's bytes")
def test_progress_is_told_as_bytes_are_read(big: Path) -> None:
    """A map of the file that is filled before anything is told would stand at 0 for as long as the disk takes."""
    told: list[tuple[int, int]] = []
    over: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    process, size = psutil.Process(), big.stat().st_size
    engine = EngineThread(LoadRequest(big, n_ctx=256), "cpu", "0")

    def tell(events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, LoadProgress):
                told.append((event.per_mille, process.io_counters().read_chars))
            elif isinstance(event, Loaded | EngineFailed):
                over.put(event)

    engine.start(tell)
    loaded = over.get(timeout=30)
    assert engine.close(10)

    assert isinstance(loaded, Loaded), loaded
    shares = [per_mille for per_mille, _ in told]
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0, 1000)
    assert len(shares) >= 4 * BIG.layers
    before = told[0][1]
    for per_mille, read_chars in told:
        # an eighth: the largest tensor is a hundredth, the file's head is read before, what others do is little
        assert abs((read_chars - before) / size - per_mille / 1000) < 1 / 8, (per_mille, read_chars - before)
