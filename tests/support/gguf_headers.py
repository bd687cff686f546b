"""Headers of generated models as values, without a file."""

from collections.abc import Collection, Mapping

from tests.support.gguf_shapes import Model, kind_of, usual_keys

from rbee_hive.domain.models.ggml_types import GGML_TYPES
from rbee_hive.domain.models.gguf import GgufHeader, TensorInfo
from rbee_hive.domain.models.gguf_values import Omitted, Value


def header_of(model: Model, changed: Mapping[str, Value] | None = None, *, without: Collection[str] = ()) -> GgufHeader:
    """The header that `write_model` writes, with other values for keys of the architecture, or without some."""
    keys: dict[str, Value] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (usual_keys(model.size) | dict(model.keys)).items()
    }
    keys |= changed or {}
    metadata: dict[str, Value] = {
        "general.architecture": model.architecture,
        "general.name": "empty",
        "tokenizer.ggml.tokens": Omitted("text", model.size.n_vocab),
    }
    metadata |= {f"{model.architecture}.{name}": value for name, value in keys.items() if name not in without}
    tensors = tuple(
        TensorInfo(name, dims, GGML_TYPES[kind_of(name, dims, model.size.kind)], 0)
        for name, dims in model.tensors.items()
    )
    return GgufHeader(3, metadata, tensors, 0)
