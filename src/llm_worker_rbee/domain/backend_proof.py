"""Is the model really where it was asked to be? Judged by what llama.cpp allocated, not by what it was told.

Pure. The input embeddings stay in main memory on every backend: looking up a row there is cheap, and llama.cpp does not
count them as a layer.
"""

from llm_worker_rbee.domain.engine_events import Device
from llm_worker_rbee.domain.load_log import Buffer, LoadReport

# as ggml calls a device; its buffers are called the same, some with `_Mapped` or `_Private` behind
_DEVICE_NAMES = {"cuda": "CUDA", "metal": "MTL", "vulkan": "Vulkan"}


def why_not_used(device: Device, report: LoadReport) -> str | None:
    """Why `device` is not, or not alone, what the model runs on; None when it is."""
    if device.backend == "cpu":
        return _elsewhere(report.buffers, "the processor", None)
    if not any(_is_on(buffer, device) for buffer in report.buffers if buffer.part == "weights"):
        return f"no weights lie on {device.id}"
    done, total = report.layers or (0, 0)
    if report.layers is None or done < total:
        return f"only {done} of {total} layers are on {device.id}"
    if any(buffer.is_host for buffer in report.buffers if buffer.part == "kv"):
        return f"the KV cache is not on {device.id}: it lies in main memory"
    return _elsewhere(report.buffers, device.id, device)


def _elsewhere(buffers: tuple[Buffer, ...], wanted: str, device: Device | None) -> str | None:
    others = sorted({buffer.name for buffer in buffers if not buffer.is_host and not _is_on(buffer, device)})
    return f"a part of the model is not on {wanted}: it lies on {', '.join(others)}" if others else None


def _is_on(buffer: Buffer, device: Device | None) -> bool:
    if device is None:
        return False
    return buffer.name.partition("_")[0] == f"{_DEVICE_NAMES[device.backend]}{device.index}"
