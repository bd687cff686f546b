"""From a request to an order for the engine: tokens, sampler stages, and the state of an answer begun elsewhere.

May run in any thread; whatever a request can get wrong about the model is found here, before its first byte.
"""

import importlib
import secrets
from collections.abc import Sequence

from llm_worker_rbee.domain.detokenize import AnswerText, Visible
from llm_worker_rbee.domain.engine_events import Guide, Order, Prepared
from llm_worker_rbee.domain.sampling_params import sampler_stages
from llm_worker_rbee.engine.llama import Vocabulary
from llm_worker_rbee.engine.loading import LoadedModel
from llm_worker_rbee.engine.prompt import prompt_tokens
from rbee_shared.contracts.faults import invalid_field
from rbee_shared.contracts.tasks import ExecuteRequest, Resume
from rbee_shared.errors import ContextOverflowError

_SEEDS = 2**32 - 1


def prepare(request: ExecuteRequest, key: int, model: LoadedModel) -> Order:
    """The order for `request`. Blocking: templates, tokenizing and grammars take their time.

    Raises:
        InvalidRequestError: the field is named in `details.errors`.
        ContextOverflowError: the prompt alone is longer than the context.
    """
    _require_known("logit_bias", request.logit_bias, model.vocabulary)
    prompt = prompt_tokens(request, model.vocabulary, model.template)
    _require_room(prompt, request, model.facts.n_ctx_answer)
    guide = model.grammars.guide(request.grammar, request.json_schema) if request.is_constrained else None
    prepared = Prepared(prompt, AnswerText(request.stop), guide)
    if request.resume is not None:
        prepared = _resumed(prepared, request.resume, model.vocabulary)
    if request.wants_logprobs:
        importlib.import_module("numpy")  # not by the engine, between two steps
    seed = request.seed if request.seed is not None else secrets.randbelow(_SEEDS)
    ends = model.vocabulary.ends if request.ignore_eos else ()
    return Order(
        key=key,
        prepared=prepared,
        stages=sampler_stages(request, seed, ends),
        max_tokens=request.max_tokens,
        replays=request.resume_exact,
        n_probs=request.n_probs if request.wants_logprobs else None,
    )


def _require_room(prompt: Sequence[int], request: ExecuteRequest, n_ctx: int) -> None:
    said = len(request.resume.ids) if request.resume is not None else 0
    if len(prompt) + max(0, said - 1) > n_ctx:  # the last token of an answer that has filled the context is in no cell
        field = "prompt" if request.prompt is not None else "messages"
        message = f"the prompt has {len(prompt)} tokens" + (f", the answer so far {said}" if said else "")
        raise ContextOverflowError(
            f"{message}, the context holds {n_ctx}",
            details={
                "prompt_tokens": len(prompt),
                "n_ctx": n_ctx,
                "errors": [{"field": field, "constraint": "n_ctx", "message": f"at most {n_ctx} tokens"}],
            },
        )


def _require_known(field: str, tokens: "Sequence[int] | dict[int, float]", vocabulary: Vocabulary) -> None:
    for token in tokens:
        if token >= vocabulary.size:
            raise invalid_field(field, "vocabulary", f"there is no token {token}: the model has {vocabulary.size}")


def _resumed(prepared: Prepared, resume: Resume, vocabulary: Vocabulary) -> Prepared:
    """Feed the answer so far through everything that watches it, and find what its reader has not seen of it."""
    _require_known("resume.ids", resume.ids, vocabulary)
    shown = []
    for number, token in enumerate(resume.ids):
        piece = vocabulary.piece(token)
        if piece is None or not _is_taken(prepared.guide, token):
            why = "ends an answer" if piece is None else "has no place in the form of the answer"
            raise invalid_field(f"resume.ids.{number}", "form", f"token {token} {why}")
        if (visible := prepared.text.push(token, piece)) is not None:
            shown.append(visible)
    frames, backlog = _unseen(shown, resume.emitted_chars, prepared.text)
    frames = resume.frames if resume.frames is not None else frames
    return Prepared(prepared.prompt, prepared.text, prepared.guide, resume.ids, frames, backlog)


def _is_taken(guide: Guide | None, token: int) -> bool:
    return guide is None or guide.accept(token)


def _unseen(shown: Sequence[Visible], emitted_chars: int, text: AnswerText) -> tuple[int, tuple[Visible, ...]]:
    """How many frames the reader has, and the rest of what was shown, without ids: those it has all."""
    left = emitted_chars
    for number, visible in enumerate(shown):
        if left < len(visible.text):
            rest = [visible.text[left:], *(later.text for later in shown[number + 1 :])]
            return number, tuple(Visible(text, ()) for text in rest)
        left -= len(visible.text)
    if left and text.was_shown(left):
        return len(shown) + 1, ()
    if left:
        raise invalid_field(
            "resume.emitted_chars", "text", f"the ids show {emitted_chars - left} characters, not {emitted_chars}"
        )
    return len(shown), ()
