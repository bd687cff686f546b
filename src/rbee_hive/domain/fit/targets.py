"""What a worker runs on, as far as it decides where a model's memory goes: the backend, and the processor's kernels.

Follows the llama.cpp that is locked, in which formats it lays out anew and which heads its fast attention takes.
"""

from collections.abc import Collection
from dataclasses import dataclass

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.fit.model_layers import Layer
from rbee_hive.domain.fit.model_shape import ModelShape
from rbee_shared.contracts.tasks import Backend

_AVX2 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_AVX512 = frozenset({"Q2_K"})
_AMX = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"})
_NEON_DOT = _AVX2 | {"Q1_0", "Q5_K", "Q6_K", "Q8_0"}
_ARM_NAMES = frozenset({"arm64", "aarch64"})

_CUDA_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
_CUDA_SHARED_HEADS = {(192, 128): 8, (320, 256): 32, (512, 512): 1, (576, 512): 1}
"""Dimensions of key and value that need several queries to one key: a multiple of so many."""
_METAL_HEADS = _CUDA_HEADS | {32, 48, 192, 320, 512, 576}
_WITHOUT_FLASH_ATTENTION = frozenset({"grok"})


@dataclass(frozen=True, slots=True)
class Target:
    """`repacked`: formats that the processor has kernels of its own for; what is also looked up is then there twice."""

    backend: Backend
    repacked: frozenset[str] = frozenset()


def repacked_by(machine: str, features: Collection[str]) -> frozenset[str]:
    """The formats that llama.cpp lays out anew for a processor.

    Args:
        machine: as `platform.machine()` has it.
        features: as Linux names them in `/proc/cpuinfo`; of an Apple processor none are needed.
    """
    if machine in _ARM_NAMES:
        return _NEON_DOT if "asimddp" in features or not features else frozenset()
    kernels = {"avx2": _AVX2, "avx512f": _AVX512, "amx_int8": _AMX}
    return frozenset[str]().union(*(formats for name, formats in kernels.items() if name in features))


def uses_flash_attention(shape: ModelShape, plan: ContextPlan, backend: Backend) -> bool:
    """Whether llama.cpp will: it falls back to whole matrices of scores where a backend cannot."""
    if plan.flash_attention == "off" or shape.architecture in _WITHOUT_FLASH_ATTENTION:
        return False
    if plan.flash_attention == "on" or plan.kv_format.is_quantized:
        return True
    attending = [layer for layer in shape.layers if layer.has_cache and layer.heads_kv]
    if backend == "cuda":
        return all(_cuda_takes(layer) for layer in attending)
    return backend != "metal" or all(layer.key_dim in _METAL_HEADS for layer in attending)


def _cuda_takes(layer: Layer) -> bool:
    if layer.key_dim == layer.value_dim and layer.key_dim in _CUDA_HEADS:
        return True
    multiple, queries = _CUDA_SHARED_HEADS.get((layer.key_dim, layer.value_dim)), layer.heads // layer.heads_kv
    return multiple is not None and queries > 1 and queries % multiple == 0
