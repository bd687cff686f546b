"""From a file to a model that has proven itself with one decoded token.

A damaged file can also abort the process inside llama.cpp: that is why a worker is a process.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_worker_rbee.domain.engine_events import Device, ModelFacts
from llm_worker_rbee.domain.sampling_params import Stage
from llm_worker_rbee.engine.chat import ChatTemplate
from llm_worker_rbee.engine.library import NativeLog
from llm_worker_rbee.engine.llama import LlamaContext, Vocabulary
from llm_worker_rbee.engine.request import DEFAULT_N_CTX, LoadRequest
from llm_worker_rbee.engine.sampler import Samplers
from llm_worker_rbee.engine.threads import thread_count
from rbee_shared.errors import InsufficientMemoryError, ModelInvalidError, ModelNotFoundError

_MAGIC = b"GGUF"
_ALL_LAYERS = -1


@dataclass
class LoadedModel:
    """Everything that generating needs. `free` gives the memory back."""

    facts: ModelFacts
    vocabulary: Vocabulary
    context: LlamaContext
    samplers: Samplers
    template: ChatTemplate | None
    _bindings: Any
    _model: int

    def free(self) -> None:
        self.context.free()
        self._bindings.llama_model_free(self._model)


def require_gguf(path: Path) -> None:
    """Refuse what cannot be a model before llama.cpp is even loaded.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelInvalidError: it is empty, or no GGUF file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise ModelInvalidError(f"{path} cannot be read: {error.strerror}") from None
    if not magic:
        raise ModelInvalidError(f"{path} is empty")
    if magic != _MAGIC:
        raise ModelInvalidError(f"{path} is not a GGUF file: it begins with {magic!r}")


def load_model(
    bindings: Any,
    log: NativeLog,
    device: Device,
    handle: int,
    request: LoadRequest,
    progress: Callable[[float], bool],
) -> LoadedModel:
    """Load, make a context, decode one token. `progress` gets 0 to 1 and returns False to give up.

    Raises:
        ModelInvalidError: llama.cpp cannot load the file; the message holds its reason.
        InsufficientMemoryError: the context does not fit into memory.
    """
    bindings.llama_backend_init()
    log.forget()
    model = _load_file(bindings, log, device, handle, request, progress)
    log.forget()
    try:
        return _with_context(bindings, log, model, device, request)
    except BaseException:
        bindings.llama_model_free(model)
        raise


def _load_file(
    bindings: Any,
    log: NativeLog,
    device: Device,
    handle: int,
    request: LoadRequest,
    progress: Callable[[float], bool],
) -> int:
    @bindings.llama_progress_callback  # type: ignore[untyped-decorator]
    def on_progress(share: float, _: object) -> bool:
        return progress(share)

    devices = (ctypes.c_void_p * 2)(handle if device.backend != "cpu" else None, None)
    params = bindings.llama_model_default_params()
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    params.n_gpu_layers = _ALL_LAYERS if device.backend != "cpu" else 0
    params.progress_callback = on_progress
    model = bindings.llama_model_load_from_file(str(request.path).encode(), params)
    if not model:
        raise ModelInvalidError(f"{request.path} cannot be loaded: {log.why()}")
    return int(model)


def _with_context(bindings: Any, log: NativeLog, model: int, device: Device, request: LoadRequest) -> LoadedModel:
    vocabulary = Vocabulary(bindings, model)
    only_decodes = bindings.llama_model_has_decoder(model) and not bindings.llama_model_has_encoder(model)
    if not only_decodes or not vocabulary.size:
        raise ModelInvalidError(f"{request.path} is no text generator: it has an encoder, or no vocabulary")
    n_ctx_train = int(bindings.llama_model_n_ctx_train(model))
    threads = thread_count(int(bindings.llama_model_n_params(model)))
    params = bindings.llama_context_default_params()
    params.n_ctx = request.n_ctx or min(n_ctx_train, DEFAULT_N_CTX)
    params.n_seq_max = request.slots
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    handle = bindings.llama_init_from_model(model, params)
    if not handle:
        raise InsufficientMemoryError(f"a context of {params.n_ctx} tokens cannot be made: {log.why()}")
    context = LlamaContext(bindings, handle, n_seq_max=request.slots)
    template = bindings.llama_model_chat_template(model, None)
    loaded = LoadedModel(
        facts=ModelFacts(
            name=_name(bindings, model) or request.path.stem,
            size_bytes=int(bindings.llama_model_size(model)),
            n_params=int(bindings.llama_model_n_params(model)),
            n_ctx=context.n_ctx,
            n_ctx_train=n_ctx_train,
            threads=threads,
            has_template=template is not None,
        ),
        vocabulary=vocabulary,
        context=context,
        samplers=Samplers(bindings, n_vocab=vocabulary.size),
        template=ChatTemplate(template.decode(errors="replace"), vocabulary) if template is not None else None,
        _bindings=bindings,
        _model=model,
    )
    _prove(loaded, request.path)
    return loaded


def _prove(loaded: LoadedModel, path: Path) -> None:
    """One real token, decoded and chosen; also what makes the first request as fast as the second."""
    chain = loaded.samplers.chain((Stage("greedy"),), ())
    try:
        loaded.context.clear_batch()
        row = loaded.context.add((loaded.vocabulary.first_token,), 0, 0, sample=True)
        if not loaded.context.decode():
            raise ModelInvalidError(f"{path} was loaded and cannot decode a token")
        if not loaded.context.has_logits(row):
            raise ModelInvalidError(
                f"{path} is no text generator: it tells no next token (an embedding model does that)"
            )
        loaded.vocabulary.piece(loaded.context.sample(chain, row))
        loaded.context.forget(0)
    finally:
        loaded.samplers.free(chain)


def _name(bindings: Any, model: int) -> str:
    buffer = ctypes.create_string_buffer(256)
    size = bindings.llama_model_meta_val_str(model, b"general.name", buffer, len(buffer))
    return buffer.value.decode(errors="replace") if size > 0 else ""
