"""Answers of a given form, by llguidance: before a token is chosen, all that may not follow are forbidden.

Every answer that ends under a guide is a sentence of its grammar, or JSON that its schema validates. What cannot be
promised is refused when the guide is made, within bounds of time and memory that no grammar or schema moves.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_worker_rbee.domain.gbnf_to_lark import gbnf_to_lark
from llm_worker_rbee.domain.json_schema_rules import enforceable_schema
from llm_worker_rbee.domain.refused_form import RefusedFormError
from llm_worker_rbee.engine.token_mask import LogitMask, TokenBits
from llm_worker_rbee.engine.token_texts import TokenTexts
from rbee_shared.errors import InvalidRequestError

# Without `no_forcing` each step would tokenize all the text that the form leaves no choice about.
_HEAD = '%llguidance {"no_forcing": true}\n'
_WRITTEN_JSON = {
    # Between two tokens of JSON: nothing, a blank, or one line break with its indentation. Without an end to it a
    # small model that begins to indent goes on for ever.
    "whitespace_pattern": r"\x20|\x0A\x20{0,16}",
    # No \u: else a key that `properties` lists could come again in disguise, with any value.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_LIMITS = {
    "max_items_in_row": 10_000,
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 100_000,  # 7 ms
    "step_max_items": 50_000,  # 3 ms
    "max_lexer_states": 20_000,  # 40 MB
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}
_SHOWN_CHARS = 300
_KEYWORD = re.compile(r"oneOf|\$ref|patternProperty|minProperties|maxProperties|multipleOf|required|sibling keys")
_KEYS = {"patternProperty": "patternProperties", "sibling keys": "$ref"}


@dataclass(frozen=True)
class _Shared:
    """What all guides of a model share."""

    tokenizer: Any
    mask: LogitMask
    size: int
    limits: Any
    new_matcher: Callable[..., Any]
    ends: frozenset[int]


class Grammars:
    """Makes guides for the answers of one loaded model. From any thread but the event loop's."""

    def __init__(self, bindings: Any, vocab: Any) -> None:
        self._texts = TokenTexts(bindings, vocab)
        self._lock = threading.Lock()
        self._shared: _Shared | None = None

    def prepare(self) -> None:
        """Import and build what the first guide needs, so that it waits for nothing.

        A tenth of a second, and half a second with 150,000 tokens: llguidance holds the GIL for most of it.
        """
        with contextlib.suppress(RefusedFormError):  # the first guide will say it
            self._prepared()

    def _prepared(self) -> _Shared:
        with self._lock:
            if self._shared is None:
                self._shared = _prepare(self._texts)
            return self._shared

    def guide(self, grammar: str | None, json_schema: Mapping[str, Any] | None) -> "Guide":
        """The state of one new answer of that form.

        Raises:
            InvalidRequestError: the form cannot be enforced; `details.errors` name the field and its keys.
        """
        field = "grammar" if grammar is not None else "json_schema"
        try:
            form = gbnf_to_lark(grammar) if grammar is not None else _json_form(json_schema or {})
            return self._begin(form)
        except RefusedFormError as error:
            raise _refusal(field, error) from None

    def _begin(self, form: str) -> "Guide":
        shared = self._prepared()
        matcher = shared.new_matcher(shared.tokenizer, _HEAD + form, log_level=0, limits=shared.limits)
        _require_no_error(matcher)
        bits = TokenBits(shared.size)
        bits.compute(matcher)  # here and not in the engine: the first one warms llguidance up, and finds what is empty
        _require_no_error(matcher)
        if not bits.has_others_than(shared.ends):
            raise RefusedFormError("no answer is of this form but the empty one")
        return Guide(matcher, shared, bits)


class Guide:
    """What may follow in one answer. Owned by the thread that samples it."""

    def __init__(self, matcher: Any, shared: _Shared, bits: TokenBits) -> None:
        self._matcher = matcher
        self._shared = shared
        self._bits = bits

    @property
    def may_end(self) -> bool:
        """The answer so far is of the form."""
        return not self._matcher.is_error() and bool(self._matcher.is_accepting())

    @property
    def is_complete(self) -> bool:
        """It is, and nothing can be added."""
        return self.may_end and bool(self._matcher.is_stopped())

    def mask(self, logits: Any) -> bool:
        """Forbid in place, in a row of as many floats as there are tokens, what may not follow.

        Returns:
            False when nothing may follow, not even the end: the form asked more than the limits allow, or this
            vocabulary cannot write it. The row is untouched then, and the answer cannot go on.
        """
        self._bits.compute(self._matcher)
        if self._matcher.is_error():
            return False
        self._shared.mask.apply(self._bits, logits)
        return True

    def accept(self, token: int) -> bool:
        """Go on after `token`; False, and nothing has changed, when it may not follow."""
        if token in self._shared.ends:
            return self.may_end
        return 0 <= token < self._shared.size and self._matcher.try_consume_tokens([token]) == 1


def _json_form(schema: Mapping[str, Any]) -> str:
    written = {**enforceable_schema(schema), "x-guidance": _WRITTEN_JSON}
    return f"start: %json {json.dumps(written)}\n"


def _prepare(texts: TokenTexts) -> _Shared:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer  # noqa: PLC0415 - 65 ms, paid by who needs it

    ends = texts.ends()
    try:
        tokenizer = LLTokenizer.from_llamacpp(
            tokens=texts.all(ends), vocab_ptr=texts.vocab, tokenize_fptr=texts.tokenize_address, eos_token=ends
        )
    except ValueError as error:
        raise RefusedFormError(f"this model's vocabulary cannot be guided: {error}") from None
    limits = LLParserLimits(**_LIMITS)
    return _Shared(tokenizer, LogitMask(texts.size), texts.size, limits, LLMatcher, frozenset(ends))


def _require_no_error(matcher: Any) -> None:
    if matcher.is_error():
        # the first lines: below them stand the grammar's text and, after a panic, a trace
        line = str(matcher.get_error()).partition("\n")[0]
        text = line.rpartition("JSON schema: ")[2].partition(". Enable ")[0][:_SHOWN_CHARS]
        if "NoExtension" in text:
            text = "nothing is of this form"
        keys = sorted({_KEYS.get(word, word) for word in _KEYWORD.findall(text)})
        raise RefusedFormError(f"cannot be enforced: {text}", tuple(keys))


def _refusal(field: str, error: RefusedFormError) -> InvalidRequestError:
    fault = {"field": field, "constraint": "enforceable", "message": str(error), "keys": list(error.keys)}
    return InvalidRequestError(f"{field}: {error}", details={"errors": [fault]})
