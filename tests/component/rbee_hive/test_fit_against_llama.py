"""The estimate against what llama.cpp really allocates, read from its load log, and against a whole worker.

Generated models, loaded by the worker's own engine; models of the sizes that people use are laid out by llama.cpp
without being allocated.
"""

import ctypes
import platform
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.gguf_expert_shapes import deepseek2, gpt_oss, mixtral, qwen3moe
from tests.support.gguf_recurrent_shapes import falcon_h1, jamba, lfm2, mamba, mamba2
from tests.support.gguf_shapes import Model, Size, gemma2, gemma3, gpt2, llama, phi3, qwen2, qwen3, write_model
from tests.support.worker import STORYTELLER, worker_process

from llm_worker_rbee.engine.devices import Devices
from llm_worker_rbee.engine.library import NativeLog, load_bindings, load_ggml
from llm_worker_rbee.engine.loading import load_model
from llm_worker_rbee.engine.request import LoadRequest
from rbee_hive.domain.fit.context_plan import ContextPlan, plan_context
from rbee_hive.domain.fit.estimate import Estimate, estimate
from rbee_hive.domain.fit.model_shape import ModelShape, shape_of
from rbee_hive.domain.fit.targets import Target, repacked_by
from rbee_hive.domain.models.gguf import read_header
from rbee_shared.contracts.workers import MemoryParts

pytestmark = pytest.mark.allow_blocking("the test loads models itself, or starts the process that does")

MIB = 1024 * 1024
ROUNDING_BYTES = 16 * 1024  # the log gives MiB with two decimals
MARGIN = 0.10
UNIFIED_4K = ContextPlan(4096, 4)


@dataclass(frozen=True)
class Case:
    """A model with a context. `tensors_per_part`: 0 for one file."""

    model: Model
    plan: ContextPlan = UNIFIED_4K
    tensors_per_part: int = 0


S = Size
CASES: dict[str, Case] = {
    "llama, grouped heads, F16": Case(llama(S())),
    "llama, a head each, Q8_0": Case(llama(S(heads_kv=8, kind="Q8_0")), ContextPlan(4096, 1)),
    "llama, tied, 100k words, Q4_0": Case(llama(S(tied=True, kind="Q4_0", n_vocab=102_400))),
    "llama, tied, 100k words, Q8_0": Case(llama(S(tied=True, kind="Q8_0", n_vocab=102_400)), ContextPlan(4096, 16)),
    "llama, 100k words, Q4_K": Case(llama(S(kind="Q4_K", n_vocab=102_400)), ContextPlan(4096, 16)),
    "llama, wide, Q4_K": Case(llama(S(2048, 2, 16, 4, None, 8192, 32_000, kind="Q4_K"))),
    "llama, long context": Case(llama(S(layers=8, kind="Q4_0")), ContextPlan(65_536, 16)),
    "llama, tiny context": Case(llama(S()), ContextPlan(300, 1)),
    "llama, in parts": Case(llama(S(layers=8)), tensors_per_part=20),
    "llama, split in 16": Case(llama(S()), ContextPlan(5000, 16, is_unified=False)),
    "llama, split in 3": Case(llama(S()), ContextPlan(5000, 3, is_unified=False)),
    "llama, cache in q8_0": Case(llama(S()), ContextPlan(4096, 4, kv_type="q8_0")),
    "llama, cache in q4_0": Case(llama(S(head_dim=128)), ContextPlan(8192, 4, kv_type="q4_0")),
    "llama, cache in f32": Case(llama(S()), ContextPlan(4096, 4, kv_type="f32")),
    "llama, no flash attention": Case(llama(S()), ContextPlan(4096, 4, flash_attention="off")),
    "qwen2, tied, Q4_0": Case(qwen2(S(tied=True, kind="Q4_0"))),
    "qwen3, large heads": Case(qwen3(S(head_dim=128))),
    "qwen3, tied, Q8_0, cache in q8_0": Case(
        qwen3(S(head_dim=128, kind="Q8_0", tied=True)), ContextPlan(4096, 4, kv_type="q8_0")
    ),
    "gemma2": Case(gemma2(S(tied=True), window=1024), ContextPlan(16_384, 4)),
    "gemma2, windowed": Case(gemma2(S(tied=True), window=1024), ContextPlan(16_384, 4, is_windowed=True)),
    "gemma2, no flash attention": Case(
        gemma2(S(tied=True), window=1024), ContextPlan(4096, 4, flash_attention="off", is_windowed=True)
    ),
    "gemma3": Case(gemma3(S(tied=True, layers=6, head_dim=256), window=512), ContextPlan(16_384, 1)),
    "gemma3, windowed, split": Case(
        gemma3(S(tied=True, layers=6, head_dim=256), window=512),
        ContextPlan(16_384, 4, is_unified=False, is_windowed=True),
    ),
    "phi3": Case(phi3(S())),
    "gpt2": Case(gpt2(S(heads_kv=8, tied=True, n_ctx=2048))),
    "mixtral, Q4_0": Case(mixtral(S(kind="Q4_0"), experts=8, used=2)),
    "qwen3moe, many narrow experts": Case(qwen3moe(S(1024, feed_forward=256, kind="Q8_0"), experts=32, used=8)),
    "qwen3moe, few experts": Case(qwen3moe(S(feed_forward=512, kind="Q4_0"), experts=16, used=4)),
    "gpt-oss": Case(gpt_oss(S(kind="Q4_0"), experts=8, used=4, window=128), ContextPlan(8192, 4)),
    "gpt-oss, windowed": Case(
        gpt_oss(S(kind="MXFP4"), experts=8, used=4, window=128), ContextPlan(8192, 16, is_windowed=True)
    ),
    "deepseek2": Case(deepseek2(S(head_dim=64), experts=8, used=2)),
    "deepseek2, more heads, smaller row": Case(deepseek2(S(head_dim=64, heads=16), experts=8, used=2, kv_rank=256)),
    "deepseek2, no flash attention": Case(
        deepseek2(S(head_dim=64), experts=8, used=2), ContextPlan(4096, 1, flash_attention="off")
    ),
    "mamba": Case(mamba(S())),
    "mamba, 16 slots": Case(mamba(S()), ContextPlan(4096, 16)),
    "mamba2": Case(mamba2(S())),
    "mamba2, 16 slots": Case(mamba2(S()), ContextPlan(4096, 16)),
    "jamba": Case(jamba(S(layers=8))),
    "jamba, split in 16": Case(jamba(S(layers=8)), ContextPlan(8192, 16, is_unified=False)),
    "falcon-h1": Case(falcon_h1(S(1024, head_dim=64)), ContextPlan(4096, 16)),
    "lfm2": Case(lfm2(S(layers=6))),
}


def shape_in(files: list[Path]) -> ModelShape:
    headers = []
    for path in files:
        with path.open("rb") as file:
            headers.append(read_header(file, path.stat().st_size))
    return shape_of(headers)


def this_processor() -> Target:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:  # a Mac
        text = ""
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    return Target("cpu", repacked_by(platform.machine(), frozenset(found[1].split()) if found else frozenset()))


@dataclass
class Bindings:
    """The library's, with other defaults for what the worker leaves as it is."""

    real: Any
    context: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def llama_context_default_params(self) -> Any:
        params = self.real.llama_context_default_params()
        for name, value in self.context.items():
            setattr(params, name, value)
        return params


@dataclass
class Native:
    """Loads models as the worker does, and forgets them."""

    bindings: Any
    log: NativeLog
    devices: Devices

    def load(self, path: Path, plan: ContextPlan) -> MemoryParts:
        request = LoadRequest(
            path,
            n_ctx=plan.n_ctx,
            slots=plan.slots,
            is_unified=plan.is_unified,
            kv_type=plan.kv_type,  # type: ignore[arg-type]
            flash_attention=plan.flash_attention,
        )
        bindings = Bindings(self.bindings, {"swa_full": False} if plan.is_windowed else {})
        device = self.devices.choose("cpu", "0")
        loaded = load_model(bindings, self.log, self.devices, device, request, lambda _: True)
        loaded.free()
        return loaded.facts.memory

    def compute_bytes(self, path: Path, plan: ContextPlan) -> int:
        """As llama.cpp lays it out, with nothing allocated."""
        c = self.bindings
        self.log.begin_load()
        devices = (ctypes.c_void_p * 2)(None, None)
        params = c.llama_model_default_params()
        params.devices, params.n_gpu_layers, params.no_alloc = ctypes.cast(devices, ctypes.c_void_p), 0, True
        params.load_mode = c.LLAMA_LOAD_MODE_NONE
        model = c.llama_model_load_from_file(str(path).encode(), params)
        assert model, self.log.why()
        wanted = c.llama_context_default_params()
        wanted.n_ctx, wanted.n_seq_max, wanted.n_outputs_max = plan.n_ctx, plan.slots, plan.slots
        wanted.n_batch = wanted.n_ubatch = 512
        wanted.kv_unified, wanted.swa_full = plan.is_unified, not plan.is_windowed
        context = c.llama_init_from_model(model, wanted)
        assert context, self.log.why()
        report = self.log.end_load()
        c.llama_free(context)
        c.llama_model_free(model)
        return report.memory.compute_bytes


@pytest.fixture(scope="module")
def native() -> Generator[Native]:
    bindings = load_bindings()
    bindings.llama_backend_init()
    yield Native(bindings, NativeLog(bindings), Devices(bindings, load_ggml()))
    bindings.llama_log_set(bindings.llama_log_callback(), None)  # ours is about to be collected


@dataclass
class Measured:
    """Each case once: what was estimated, and what llama.cpp told."""

    native: Native
    directory: Path

    def __post_init__(self) -> None:
        self.of = cache(self._of)

    def _of(self, name: str) -> tuple[Estimate, MemoryParts]:
        case = CASES[name]
        files = write_model(self.directory / "model.gguf", case.model, tensors_per_part=case.tensors_per_part)
        try:
            found = estimate(shape_in(files), case.plan, this_processor())
            return found, self.native.load(files[0], case.plan)
        finally:
            for path in files:
                path.unlink()


@pytest.fixture(scope="module")
def measured(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return Measured(native, tmp_path_factory.mktemp("models"))


def _error(found: Estimate, actual: MemoryParts) -> float:
    """Of everything that llama.cpp allocates, as a share of it: above 0 is too much."""
    took = actual.weights_bytes + actual.kv_bytes + actual.compute_bytes
    return (found.parts.total_bytes - found.parts.overhead_bytes) / took - 1


@pytest.mark.parametrize("name", CASES)
def test_part_by_part(measured: Measured, name: str) -> None:
    found, actual = measured.of(name)
    parts = found.parts

    assert abs(parts.weights_bytes - actual.weights_bytes) <= max(ROUNDING_BYTES, actual.weights_bytes // 500)
    assert abs(parts.kv_bytes - actual.kv_bytes) <= ROUNDING_BYTES
    assert -0.02 <= parts.compute_bytes / actual.compute_bytes - 1 <= 0.5
    assert -0.01 <= _error(found, actual) <= MARGIN


def test_nineteen_of_twenty_are_within_the_margin_and_none_is_much_too_low(measured: Measured) -> None:
    errors = sorted(abs(_error(*measured.of(name))) for name in CASES)

    assert len(errors) >= 12
    assert errors[len(errors) * 95 // 100] <= MARGIN
    assert min(_error(*measured.of(name)) for name in CASES) > -MARGIN


def test_the_embedded_model(native: Native) -> None:
    plan = ContextPlan(2048, 4)
    found = estimate(shape_in([STORYTELLER]), plan, this_processor())

    assert -0.01 <= _error(found, native.load(STORYTELLER, plan)) <= MARGIN


LARGE = ContextPlan(16_384, 4)


@pytest.mark.parametrize(
    ("model", "plan"),
    [
        pytest.param(llama(S(4096, 32, 32, 8, 128, 14_336, 128_256, kind="Q4_K")), LARGE, id="llama 8B"),
        pytest.param(
            llama(S(8192, 80, 64, 8, 128, 28_672, 128_256, kind="Q4_K")), ContextPlan(65_536, 16), id="llama 70B"
        ),
        pytest.param(qwen3moe(S(2048, 48, 32, 4, 128, 768, 151_936), experts=128, used=8), LARGE, id="qwen3 30B-A3B"),
        pytest.param(mixtral(S(4096, 32, 32, 8, 128, 14_336, 32_000), experts=8, used=2), LARGE, id="mixtral 8x7B"),
        pytest.param(gemma3(S(5376, 62, 32, 16, 128, 21_504, 262_144, tied=True), window=1024), LARGE, id="gemma3 27B"),
        pytest.param(
            gpt_oss(S(2880, 24, 64, 8, 64, 2880, 201_088), experts=32, used=4, window=128),
            ContextPlan(32_768, 16, is_windowed=True),
            id="gpt-oss 20B",
        ),
        pytest.param(
            deepseek2(S(7168, 61, 128, 128, 128, 18_432, 129_280), experts=256, used=8), LARGE, id="deepseek 671B"
        ),
        pytest.param(mamba2(S(2560, 64, n_vocab=50_288)), LARGE, id="mamba2 2.7B"),
        pytest.param(falcon_h1(S(3072, 44, 12, 2, 128, 12_288, 130_048), state=256), LARGE, id="falcon-h1 7B"),
    ],
)
def test_scratch_of_the_sizes_that_people_use(native: Native, tmp_path: Path, model: Model, plan: ContextPlan) -> None:
    files = write_model(tmp_path / "model.gguf", model)
    parts = estimate(shape_in(files), plan, this_processor()).parts

    assert -0.02 <= parts.compute_bytes / native.compute_bytes(files[0], plan) - 1 <= 0.3


@pytest.mark.parametrize(
    ("n_vocab", "flags"),
    [
        pytest.param(512, ("--n-ctx", "4096"), id="small vocabulary"),
        pytest.param(512, ("--n-ctx", "32768", "--slots", "16"), id="long context"),
        pytest.param(152_000, (), id="large vocabulary, worker's choice"),
    ],
)
async def test_a_whole_worker_stays_within_its_estimate(tmp_path: Path, n_vocab: int, flags: tuple[str, ...]) -> None:
    """The process touches not all of its scratch: it may be below the estimate by that, and by a quarter."""
    files = write_model(tmp_path / "model.gguf", llama(S(n_vocab=n_vocab)))
    shape = shape_in(files)
    given = dict(zip(flags[::2], map(int, flags[1::2]), strict=True))
    plan = plan_context(
        shape,
        n_ctx=given.get("--n-ctx"),
        slots=given.get("--slots"),
        free_bytes=psutil.virtual_memory().available,
        backend="cpu",
    )
    found = estimate(shape, plan, this_processor()).parts
    async with worker_process(tmp_path, *flags, model=files[0]) as worker:
        await worker.until_ready(60)
        await worker.execute(prompt="w1 w2 w3 " * 300, max_tokens=8)
        health = await worker.health()

    assert abs(health["memory"]["kv_bytes"] - found.kv_bytes) <= ROUNDING_BYTES, "the worker chose another context"
    assert health["rss_bytes"] <= found.total_bytes
    assert health["rss_bytes"] >= 0.75 * (found.total_bytes - found.compute_bytes)
