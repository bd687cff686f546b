"""What is read from llama.cpp's load log, and what is concluded from it. The lines are in llama.cpp's own form.

That the form is still this one is tested with real loads in the component tests.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_worker_rbee.domain.backend_proof import why_not_used
from llm_worker_rbee.domain.engine_events import Device
from llm_worker_rbee.domain.load_log import Buffer, LoadReport, LogLines, read_load_log
from rbee_shared.contracts.workers import MemoryParts

MIB = 1024 * 1024
CONTEXT = "llama_context: constructing llama_context"

ON_CPU = """\
print_info: file size   = 3.94 MiB (16.01 BPW)
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors:   CPU_Mapped model buffer size =    74.10 MiB
load_tensors:   CPU_REPACK model buffer size =    78.13 MiB
llama_context: constructing llama_context
llama_context:        CPU  output buffer size =     0.25 MiB
llama_kv_cache:        CPU KV buffer size =    24.00 MiB
llama_kv_cache: size =   24.00 MiB (  1024 cells,  12 layers,  4/1 seqs), K (f16):   12.00 MiB, V (f16):   12.00 MiB
sched_reserve:        CPU compute buffer size =    25.50 MiB
""".splitlines()

ON_CUDA_1 = """\
load_tensors: offloading output layer to GPU
load_tensors: offloading 22 repeating layers to GPU
load_tensors: offloaded 23/23 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    35.16 MiB
load_tensors:        CUDA1 model buffer size =   571.37 MiB
llama_context: constructing llama_context
llama_context:  CUDA_Host  output buffer size =     0.12 MiB
llama_kv_cache:      CUDA1 KV buffer size =    44.00 MiB
sched_reserve:      CUDA1 compute buffer size =   148.00 MiB
sched_reserve:  CUDA_Host compute buffer size =     8.01 MiB
""".splitlines()

ON_METAL = """\
load_tensors: offloaded 23/23 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    35.16 MiB
load_tensors:  MTL0_Mapped model buffer size =   571.37 MiB
llama_context: constructing llama_context
llama_context:        CPU  output buffer size =     0.12 MiB
llama_kv_cache: MTL0_Private KV buffer size =    44.00 MiB
sched_reserve:       MTL0 compute buffer size =   148.00 MiB
sched_reserve:        CPU compute buffer size =     8.01 MiB
""".splitlines()

HYBRID_OF_TWO_WINDOWS = """\
load_tensors:          CPU model buffer size =   100.00 MiB
llama_context: constructing llama_context
llama_context:        CPU  output buffer size =     1.00 MiB
llama_kv_cache:        CPU KV buffer size =    64.00 MiB
llama_kv_cache: size =   64.00 MiB (  4096 cells,   8 layers,  4/1 seqs), K (f16):   32.00 MiB, V (f16):   32.00 MiB
llama_kv_cache:        CPU KV buffer size =    16.00 MiB
llama_memory_recurrent:        CPU RS buffer size =     3.00 MiB
llama_dsv4_comp_state:        CPU DSV4 csa state buffer size =     2.00 MiB
sched_reserve:        CPU compute buffer size =    10.00 MiB
""".splitlines()

SECOND_TRY = [*ON_CPU, CONTEXT, "llama_kv_cache:        CPU KV buffer size =    12.00 MiB"]
LAID_OUT_ANEW = [*ON_CPU, "sched_reserve:        CPU compute buffer size =    30.00 MiB"]
AT_THE_END = [
    *ON_CPU,
    "~llama_context:        CPU compute buffer size is  25.5000 MiB, matches expectation of  25.5000 MiB",
    "~llama_context:        CPU compute buffer size of  9.0000 MiB, does not match expectation of  25.5000 MiB",
]


def _mib(weights: float, kv: float, compute: float) -> MemoryParts:
    sizes = (round(size * MIB) for size in (weights, kv, compute))
    return MemoryParts(**dict(zip(("weights_bytes", "kv_bytes", "compute_bytes"), sizes, strict=True)))


@pytest.mark.parametrize(
    ("lines", "memory"),
    [
        pytest.param(ON_CPU, _mib(152.23, 24, 25.75), id="processor"),
        pytest.param(ON_CUDA_1, _mib(606.53, 44, 156.13), id="CUDA"),
        pytest.param(ON_METAL, _mib(606.53, 44, 156.13), id="Metal"),
        pytest.param(HYBRID_OF_TWO_WINDOWS, _mib(100, 85, 11), id="two windows, recurrent and compressed state"),
        pytest.param(SECOND_TRY, _mib(152.23, 12, 0), id="a context that did not fit is not counted"),
        pytest.param(LAID_OUT_ANEW, _mib(152.23, 24, 30.25), id="scratch that was laid out again is counted once"),
        pytest.param(AT_THE_END, _mib(152.23, 24, 25.75), id="what it says on leaving is no allocation"),
        pytest.param([], _mib(0, 0, 0), id="nothing"),
    ],
)
def test_memory_by_part(lines: list[str], memory: MemoryParts) -> None:
    read = read_load_log(lines).memory

    for part in MemoryParts.model_fields:
        assert abs(getattr(read, part) - getattr(memory, part)) <= 4, part  # bytes, one for each rounded buffer


def test_what_lies_on_a_device() -> None:
    report = read_load_log(ON_CUDA_1)

    assert report.layers == (23, 23)
    assert report.device_bytes == sum(round(size * MIB) for size in (571.37, 44, 148))
    assert read_load_log(ON_CPU).layers is None
    assert read_load_log(ON_CPU).device_bytes == 0


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=30))
def test_any_line_may_come(lines: list[str]) -> None:
    assert read_load_log(lines).memory == _mib(0, 0, 0)


def _device(backend: str, index: int = 0) -> Device:
    return Device(id=f"{backend}:{index}" if backend != "cpu" else "cpu", backend=backend, index=index, description="")


def _with(lines: list[str], old: str, new: str) -> list[str]:
    assert any(old in line for line in lines)
    return [line.replace(old, new) for line in lines]


CPU_LEFT = _with(ON_CUDA_1, "CUDA1 KV buffer", "CPU KV buffer")
TWO_CARDS = [*ON_CUDA_1, "sched_reserve:      CUDA0 compute buffer size =    10.00 MiB"]
ONLY_HOST = [line for line in ON_CUDA_1 if "CUDA1" not in line]


@pytest.mark.parametrize(
    ("device", "lines", "reason"),
    [
        pytest.param(_device("cpu"), ON_CPU, None, id="processor"),
        pytest.param(_device("cpu"), ["load_tensors: offloaded 0/23 layers to GPU", *ON_CPU], None, id="could offload"),
        pytest.param(_device("cuda", 1), ON_CUDA_1, None, id="CUDA"),
        pytest.param(_device("metal"), ON_METAL, None, id="Metal"),
        pytest.param(_device("vulkan"), _with(_with(ON_CUDA_1, "CUDA1", "Vulkan0"), "CUDA_", "Vulkan_"), None, id="V"),
        pytest.param(_device("cuda"), ON_CPU, "no weights lie on cuda:0", id="silent fall-back"),
        pytest.param(_device("cuda"), ON_CUDA_1, "no weights lie on cuda:0", id="another card"),
        pytest.param(_device("cuda", 1), _with(ON_CUDA_1, "CUDA1", "CUDA11"), "no weights lie on cuda:1", id="eleven"),
        pytest.param(_device("cuda", 1), ONLY_HOST, "no weights lie on cuda:1", id="pinned main memory is no device"),
        pytest.param(_device("metal"), ON_CUDA_1, "no weights lie on metal:0", id="another backend"),
        pytest.param(_device("cuda", 1), _with(ON_CUDA_1, "23/23", "12/23"), "only 12 of 23 layers", id="half of it"),
        pytest.param(_device("cuda", 1), ON_CUDA_1[3:], "only 0 of 0 layers", id="no word on layers"),
        pytest.param(_device("cuda", 1), CPU_LEFT, "the KV cache is not on cuda:1", id="KV left behind"),
        pytest.param(_device("cuda", 1), TWO_CARDS, "not on cuda:1: it lies on CUDA0", id="one card too many"),
        pytest.param(_device("cpu"), ON_CUDA_1, "not on the processor: it lies on CUDA1", id="not asked for"),
    ],
)
def test_was_the_device_used(device: Device, lines: list[str], reason: str | None) -> None:
    why = why_not_used(device, read_load_log(lines))

    assert (why is None) == (reason is None), why
    assert (reason or "") in (why or "")


@pytest.mark.parametrize("name", ["CPU", "CPU_Mapped", "CPU_REPACK", "CPU_HBM", "AMX", "CUDA_Host", "Vulkan_Host"])
def test_main_memory(name: str) -> None:
    assert Buffer(name, "weights", 1).is_host
    assert why_not_used(_device("cpu"), LoadReport((Buffer(name, "weights", 1),), None)) is None


@given(st.lists(st.tuples(st.integers(1, 4), st.text("ab\n", max_size=6), st.lists(st.text("ab.\n", max_size=3)))))
def test_lines_are_joined_however_they_come(messages: list[tuple[int, str, list[str]]]) -> None:
    lines = LogLines()
    got: list[tuple[int, str]] = []
    wanted: list[tuple[int, str]] = []
    for level, text, continued in messages:
        got += lines.feed(level, text)
        for fragment in continued:
            got += lines.feed(5, fragment)
        whole = (text + "".join(continued)).split("\n")
        wanted += [(level, line) for line in whole[:-1]] + ([(level, whole[-1])] if whole[-1] else [])
    got += lines.rest()

    assert got == wanted
    assert not list(lines.rest())
