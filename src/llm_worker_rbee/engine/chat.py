"""The model's own chat template, rendered in Jinja's sandbox with bounds on what it may produce.

A template comes with a model file: it can loop, repeat and nest, but not reach Python, and not make more than
`MAX_CHARS` characters. The user's words never act as control tokens (`domain.prompt_pieces`).
"""

import datetime
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from llm_worker_rbee.domain.prompt_pieces import Piece, Shield
from llm_worker_rbee.engine.llama import Vocabulary
from rbee_shared.contracts.tasks import ChatMessage
from rbee_shared.errors import InvalidRequestError

MAX_CHARS = 4 * 1024 * 1024
_MAX_REPEAT = 100_000
_MAX_EXPONENT = 64


class ChatTemplate:
    """A template that was compiled once. `render` may be called from any thread."""

    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        self._strings = {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}
        self._controls = vocabulary.control_texts()
        self._fault = ""
        try:
            self._template = _Sandbox(trim_blocks=True, lstrip_blocks=True).from_string(source)
        except (TemplateError, RecursionError) as error:  # the model can still answer raw prompts
            self._fault = f"the model's chat template is not valid: {error}"

    def render(self, messages: Sequence[ChatMessage]) -> tuple[Piece, ...]:
        """The conversation as the model expects it, ready for its answer.

        Raises:
            InvalidRequestError: the template refuses the conversation, or cannot be rendered.
        """
        if self._fault:
            raise _refused(self._fault)
        shield = Shield(self._controls, secrets.token_hex(8))
        turns = [{"role": message.role, "content": shield.hide(message.content)} for message in messages]
        try:
            text = self._bounded(turns)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise _refused(f"the model's chat template refuses this conversation: {error}") from None
        bos = self._strings["bos_token"]
        # the tokenizer puts it there itself: not twice
        return shield.pieces(text.removeprefix(bos) if bos else text)

    def _bounded(self, turns: Sequence[Mapping[str, str]]) -> str:
        parts, size = [], 0
        for part in self._template.generate(messages=turns, add_generation_prompt=True, **self._strings):
            size += len(part)
            if size > MAX_CHARS:
                raise SecurityError(f"it makes more than {MAX_CHARS} characters")
            parts.append(part)
        return "".join(parts)


def _refused(text: str) -> InvalidRequestError:
    return InvalidRequestError(
        text, hint='Send "template": "raw" with a prompt that is written as the model expects it, or other messages.'
    )


class _Sandbox(ImmutableSandboxedEnvironment):
    """The helpers that templates in the field expect; operators that can blow up are bounded, never folded early."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(extensions=["jinja2.ext.loopcontrols"], **options)
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _strftime_now
        self.filters["tojson"] = _to_json  # Jinja's own escapes for HTML

    @override
    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and abs(right) > _MAX_EXPONENT:
            raise SecurityError(f"exponent {right} is too large")
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(other, int) and len(one) * other > _MAX_REPEAT:
                    raise SecurityError("it repeats a text too often")
        return super().call_binop(context, operator, left, right)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)
