"""From a file to a model that has proven itself with one decoded token.

A damaged file can also abort the process inside llama.cpp: that is why a worker is a process.
"""

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_worker_rbee.domain.backend_proof import why_not_used
from llm_worker_rbee.domain.batch_plan import BATCH_TOKENS
from llm_worker_rbee.domain.context_size import default_n_ctx, default_slots, n_ctx_of_an_answer
from llm_worker_rbee.domain.engine_events import Device, ModelFacts
from llm_worker_rbee.domain.load_log import LoadReport
from llm_worker_rbee.domain.sampling_params import Stage
from llm_worker_rbee.engine.chat import ChatTemplate, strings_of
from llm_worker_rbee.engine.devices import Devices
from llm_worker_rbee.engine.grammar import Grammars
from llm_worker_rbee.engine.library import NativeLog
from llm_worker_rbee.engine.llama import LlamaContext, Vocabulary
from llm_worker_rbee.engine.request import LoadRequest
from llm_worker_rbee.engine.sampler import Samplers
from llm_worker_rbee.engine.template_check import checking
from llm_worker_rbee.engine.threads import thread_count
from rbee_shared.errors import BackendUnavailableError, InsufficientMemoryError, ModelInvalidError, ModelNotFoundError

_MAGIC = b"GGUF"
_ALL_LAYERS = -1
_LARGE_VOCABULARY = 20_000  # from here on making it ready for grammars would hold running answers up
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


@dataclass
class LoadedModel:
    """Everything that generating needs. `free` gives the memory back."""

    facts: ModelFacts
    vocabulary: Vocabulary
    context: LlamaContext
    samplers: Samplers
    template: ChatTemplate | None
    grammars: Grammars
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
    devices: Devices,
    device: Device,
    request: LoadRequest,
    progress: Callable[[float], bool],
) -> LoadedModel:
    """Load, make a context, decode one token. `progress` gets 0 to 1 and returns False to give up.

    Raises:
        ModelInvalidError: llama.cpp cannot load the file; the message holds its reason.
        InsufficientMemoryError: the context does not fit into memory.
        BackendUnavailableError: the model did not go where it was asked to.
    """
    bindings.llama_backend_init()
    log.begin_load()
    model = _load_file(bindings, log, devices.handle(device), request, progress)
    try:
        return _with_context(bindings, log, model, devices, device, request)
    except BaseException:
        bindings.llama_model_free(model)
        raise


def _load_file(
    bindings: Any, log: NativeLog, handle: int | None, request: LoadRequest, progress: Callable[[float], bool]
) -> int:
    """`handle`: the one graphics device that all layers go to, None for the processor."""

    @bindings.llama_progress_callback  # type: ignore[untyped-decorator]
    def on_progress(share: float, _: object) -> bool:
        return progress(share)

    devices = (ctypes.c_void_p * 2)(handle, None)
    params = bindings.llama_model_default_params()
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    params.split_mode = bindings.LLAMA_SPLIT_MODE_NONE
    params.main_gpu = 0  # of `devices`
    params.n_gpu_layers = 0 if handle is None else _ALL_LAYERS
    # mapped, the whole file is read before the first word on progress, and weights that are laid out anew for the
    # processor are in memory twice
    params.load_mode = bindings.LLAMA_LOAD_MODE_NONE
    params.progress_callback = on_progress
    model = bindings.llama_model_load_from_file(str(request.path).encode(), params)
    if not model:
        raise ModelInvalidError(f"{request.path} cannot be loaded: {log.why()}")
    log.forget()
    return int(model)


def _with_context(
    bindings: Any, log: NativeLog, model: int, devices: Devices, device: Device, request: LoadRequest
) -> LoadedModel:
    vocabulary = Vocabulary(bindings, model)
    only_decodes = bindings.llama_model_has_decoder(model) and not bindings.llama_model_has_encoder(model)
    if not only_decodes or not vocabulary.size:
        raise ModelInvalidError(f"{request.path} is no text generator: it has an encoder, or no vocabulary")
    with _beginning_template(bindings, model, vocabulary) as finish_template:
        request = _completed(bindings, model, request, device, devices.free_bytes(device))
        context = _make_context(bindings, log, model, request)
        report = log.end_load()
        if (fault := why_not_used(device, report)) is not None:
            raise BackendUnavailableError(fault)
        samplers = Samplers(bindings, n_vocab=vocabulary.size)
        _prove(vocabulary, context, samplers, request.path)
        grammars = Grammars(bindings, bindings.llama_model_get_vocab(model))
        if vocabulary.size >= _LARGE_VOCABULARY:
            grammars.prepare()
            _ = vocabulary.ends
        template = finish_template()
    facts = _facts(bindings, model, context, request, report)
    if template is not None:
        facts = replace(facts, has_template=True, template_fault=template.fault or None)
    return LoadedModel(facts, vocabulary, context, samplers, template, grammars, bindings, model)


def _facts(bindings: Any, model: int, context: LlamaContext, request: LoadRequest, report: LoadReport) -> ModelFacts:
    assert request.threads is not None
    n_ctx_train = int(bindings.llama_model_n_ctx_train(model))
    return ModelFacts(
        name=_name(bindings, model) or request.path.stem,
        size_bytes=int(bindings.llama_model_size(model)),
        n_params=int(bindings.llama_model_n_params(model)),
        n_ctx=context.n_ctx,
        n_ctx_answer=n_ctx_of_an_answer(n_ctx_seq=context.n_ctx_seq, n_ctx_train=n_ctx_train),
        n_ctx_train=n_ctx_train,
        slots=context.n_seq_max,
        threads=request.threads,
        memory=report.memory,
        device_bytes=report.device_bytes,
        has_template=False,
    )


@contextmanager
def _beginning_template(
    bindings: Any, model: int, vocabulary: Vocabulary
) -> Generator[Callable[[], ChatTemplate | None]]:
    """Have the model's template tried in a child while the block goes on; what is yielded waits for the verdict."""
    found = bindings.llama_model_chat_template(model, None)
    if found is None:
        yield lambda: None
        return
    source = found.decode(errors="replace")
    with checking(source, strings_of(vocabulary)) as check:
        yield lambda: ChatTemplate(source, vocabulary, fault=check.finish())


def _completed(bindings: Any, model: int, request: LoadRequest, device: Device, free_bytes: int) -> LoadRequest:
    """The request with every number that it left open."""
    slots = request.slots or default_slots(device.backend)
    n_ctx = request.n_ctx or default_n_ctx(
        n_ctx_train=int(bindings.llama_model_n_ctx_train(model)),
        slots=slots,
        token_bytes=_token_bytes(bindings, model),
        free_bytes=free_bytes,
    )
    threads = request.threads or thread_count(int(bindings.llama_model_n_params(model)))
    return replace(request, slots=slots, n_ctx=n_ctx, threads=threads)


def _make_context(bindings: Any, log: NativeLog, model: int, request: LoadRequest) -> LlamaContext:
    """`request` has every number by now."""
    assert request.slots is not None
    params = bindings.llama_context_default_params()
    params.n_ctx = request.n_ctx
    params.n_seq_max = params.n_outputs_max = request.slots
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.kv_unified = request.is_unified
    params.type_k = params.type_v = getattr(bindings, f"GGML_TYPE_{request.kv_type.upper()}")
    params.flash_attn_type = _FLASH_ATTENTION[request.flash_attention]
    params.n_threads = params.n_threads_batch = request.threads
    params.no_perf = True
    handle = bindings.llama_init_from_model(model, params)
    if not handle:
        raise InsufficientMemoryError(f"a context of {request.n_ctx} tokens cannot be made: {log.why()}")
    is_recurrent = bindings.llama_model_is_recurrent(model) or bindings.llama_model_is_hybrid(model)
    return LlamaContext(
        bindings, handle, n_seq_max=request.slots, is_unified=request.is_unified, is_recurrent=bool(is_recurrent)
    )


def _token_bytes(bindings: Any, model: int) -> int:
    """Memory of one token in the cache, in f16; a guess where heads have an unusual size."""
    head_dim = bindings.llama_model_n_embd(model) // max(1, bindings.llama_model_n_head(model))
    return int(2 * 2 * bindings.llama_model_n_layer(model) * bindings.llama_model_n_head_kv(model) * head_dim)


def _prove(vocabulary: Vocabulary, context: LlamaContext, samplers: Samplers, path: Path) -> None:
    """One real token, decoded and chosen; also what makes the first request as fast as the second."""
    chain = samplers.chain((Stage("greedy"),), ())
    try:
        context.clear_batch()
        row = context.add((vocabulary.first_token,), 0, 0, sample=True)
        if not context.decode():
            raise ModelInvalidError(f"{path} was loaded and cannot decode a token")
        if not context.logits(row):
            raise ModelInvalidError(
                f"{path} is no text generator: it tells no next token (an embedding model does that)"
            )
        vocabulary.piece(context.sample(chain, row))
        context.forget(0)
    finally:
        samplers.free(chain)


def _name(bindings: Any, model: int) -> str:
    buffer = ctypes.create_string_buffer(256)
    size = bindings.llama_model_meta_val_str(model, b"general.name", buffer, len(buffer))
    return buffer.value.decode(errors="replace") if size > 0 else ""
