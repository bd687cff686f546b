"""The model's own chat template, from messages to the pieces of a prompt. `template_sandbox` says what it may do.

The user's words never act as control tokens (`domain.prompt_pieces`). A template that is at fault, found by
`template_check` or here, is kept with the reason: the model still answers raw prompts.
"""

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llm_worker_rbee.domain.prompt_pieces import ControlTexts, Piece, Shield, TooManyControlTextsError
from llm_worker_rbee.domain.render_limits import Meter, TooMuchError
from llm_worker_rbee.engine.template_sandbox import COMPILE_ERRORS, RENDER_ERRORS, Program, compile_template, reason
from rbee_shared.contracts.tasks import ChatMessage
from rbee_shared.errors import InvalidRequestError

RENDER_LIMIT_S = 1.0
# more would share one interpreter, and make so much at one time
_RENDERINGS = 4
_MAX_REASON = 300


class SpecialTexts(Protocol):
    """What a template needs of a vocabulary."""

    bos: str
    eos: str
    adds_bos: bool

    def control_texts(self) -> list[str]: ...


class ChatTemplate:
    """A template that was compiled once. `render` may be called from any thread."""

    def __init__(
        self, source: str, vocabulary: SpecialTexts, *, fault: str = "", limit_s: float = RENDER_LIMIT_S
    ) -> None:
        """`fault`: what `TemplateCheck.finish` said; such a template is not even compiled."""
        self._strings = strings_of(vocabulary)
        self._added = vocabulary.bos if vocabulary.adds_bos else ""
        self._controls = ControlTexts(vocabulary.control_texts())
        self._limit_s = limit_s
        self._turns = threading.BoundedSemaphore(_RENDERINGS)
        self._program: Program | None = None
        self.fault = fault
        if not fault:
            try:
                self._program = compile_template(source)
            except COMPILE_ERRORS as error:
                self.fault = f"is not valid: {reason(error)}"

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = (), *, field: str = "messages"
    ) -> tuple[Piece, ...]:
        """The conversation as the model expects it, ready for its answer.

        Args:
            messages: at least one.
            tools: definitions for a template that takes them.
            field: of the request, that the messages come from.

        Raises:
            InvalidRequestError: the template refuses the conversation, or cannot be rendered, or takes no tools.
        """
        if self._program is None:
            raise _refused(field, f"the model's chat template {self.fault}")
        if tools and not self._program.takes_tools:
            raise _refused("tools", "the model's chat template takes no tools")
        shield = Shield(self._controls, str(secrets.randbits(64)))
        try:
            text = self._bounded(self._program, _variables(shield, messages, tools))
        except (TooMuchError, TooManyControlTextsError) as error:
            raise _refused(field, f"the model's chat template {error}") from None
        except RENDER_ERRORS as error:
            why = shield.reveal(reason(error))[:_MAX_REASON]
            raise _refused(field, f"the model's chat template refuses this conversation: {why}") from None
        # the tokenizer puts it there itself: not twice
        return shield.pieces(text.removeprefix(self._added))

    def _bounded(self, program: Program, variables: Mapping[str, Any]) -> str:
        meter = Meter(time.monotonic, self._limit_s)
        if not self._turns.acquire(timeout=self._limit_s):
            raise TooMuchError(f"takes longer than {self._limit_s:g} s, with others before it")
        try:
            kept = {name: meter.keep_all(value) for name, value in variables.items()}
            return program.render(meter, {**kept, **self._strings})
        finally:
            self._turns.release()


def strings_of(vocabulary: SpecialTexts) -> dict[str, str]:
    """The variables that a template gets for every conversation."""
    return {"bos_token": vocabulary.bos, "eos_token": vocabulary.eos}


def _variables(shield: Shield, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "messages": [_turn(shield, message) for message in messages],
        # None, as Hugging Face gives it: many templates ask whether it is not none
        "tools": shield.hide_all(list(tools)) if tools else None,
        "add_generation_prompt": True,
    }


def _turn(shield: Shield, message: ChatMessage) -> dict[str, Any]:
    """A message as templates expect it: what is not there is not a key, but content is always a text."""
    given = {"name": message.name, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    return {
        "role": message.role,
        "content": shield.hide(message.content or ""),
        **{key: shield.hide_all(value) for key, value in given.items() if value is not None},
    }


def _refused(field: str, text: str) -> InvalidRequestError:
    return InvalidRequestError(
        text,
        hint='Send "template": "raw" with a prompt that is written as the model expects it, or other messages.',
        details={"errors": [{"field": field, "constraint": "template", "message": text}]},
    )
