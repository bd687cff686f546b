"""Answers of a given form: whatever ends is of it, what cannot be promised is refused at once and by name."""

import ctypes
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from datetime import datetime
from datetime import time as daytime
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from tests.support.grammar_cases import JSON_GBNF, REFUSED_GRAMMARS, SENTENCES
from tests.support.json_schema_cases import ENFORCED_KEYWORDS, HOSTILE_SCHEMAS, REFUSED_SCHEMAS
from tests.support.random_schemas import tame_schema, wild_schema
from tests.support.raw_llama import RawModel, raw_model

import rbee_shared
from llm_worker_rbee.engine.grammar import Grammars, Guide
from rbee_shared.errors import InvalidRequestError

pytest.importorskip("llama_cpp", reason="the engine is not installed here")

MODEL = Path(rbee_shared.__file__).parent / "assets" / "storyteller.gguf"
REFUSED_WITHIN_S = 2.0  # measured: 2 to 60 ms
MAX_TOKENS = 300
Schema = dict[str, Any]
WHOLE = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}}, "required": ["name"]}


@pytest.fixture(scope="module")
def model() -> Generator[RawModel]:
    with raw_model(MODEL) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def grammars(model: RawModel) -> Grammars:
    return Grammars(model.bindings, model.vocab)


class Row:
    """A row of logits of our own."""

    def __init__(self, size: int) -> None:
        self.floats = (ctypes.c_float * size)()

    def allowed(self, guide: Guide) -> list[int]:
        """The tokens that may follow."""
        ctypes.memset(self.floats, 0, ctypes.sizeof(self.floats))
        assert guide.mask(ctypes.cast(self.floats, ctypes.POINTER(ctypes.c_float)))
        return [token for token, logit in enumerate(self.floats) if logit == 0.0]


@pytest.fixture(scope="module")
def row(model: RawModel) -> Row:
    return Row(model.n_vocab)


Written = Callable[[Guide, str], bool]


@pytest.fixture(scope="module")
def written(model: RawModel) -> Written:
    """Whether a guide lets this text be the whole answer; byte by byte, which every vocabulary of this kind can."""
    byte_tokens = {model.text([token]): token for token in reversed(range(model.n_vocab))}

    def write(guide: Guide, text: str) -> bool:
        return all(guide.accept(byte_tokens[bytes([byte])]) for byte in text.encode()) and guide.may_end

    return write


def answer(model: RawModel, guide: Guide, seed: int, max_tokens: int = MAX_TOKENS) -> tuple[list[int], bool]:
    """A real answer at temperature 1, drawn towards its end the longer it gets. Its tokens, and whether it ended."""
    model.restart()
    closing = [token for token in range(model.n_vocab) if set(model.text([token])) & set(b'"]}')]
    tokens: list[int] = []
    logits = model.decode(model.tokenize("<|user|>Answer in JSON.<|end|><|assistant|>"))
    with model.sampler(1.0, seed) as chain:
        while len(tokens) < max_tokens and not guide.is_complete:
            for token in [*closing, *model.ends]:
                logits[token] += 3.0 + len(tokens) / 10
            assert guide.mask(logits)
            token = model.sample(chain)
            assert guide.accept(token)
            if token in model.ends:
                return tokens, True
            tokens.append(token)
            logits = model.decode([token])
    return tokens, guide.is_complete


def wander(model: RawModel, guide: Guide, row: Row, random: Random) -> str | None:
    """An answer that no model chose: any allowed token, a closing one rather when it gets long. None: unended."""
    tokens: list[int] = []
    while len(tokens) < 150 and not guide.is_complete:
        allowed = row.allowed(guide)
        if guide.may_end and random.random() < 0.5:
            break
        closing = [token for token in allowed if set(model.text([token])) <= set(b'"]}') and token not in model.ends]
        choices = closing if closing and random.random() < len(tokens) / 60 else allowed
        token = random.choice([token for token in choices if token not in model.ends])
        assert guide.accept(token)
        tokens.append(token)
    return model.text(tokens).decode() if guide.may_end else None


# grammars


@pytest.mark.parametrize(("grammar", "sentence"), SENTENCES)
def test_an_answer_is_a_sentence(model: RawModel, grammars: Grammars, grammar: str, sentence: str) -> None:
    ended = 0
    for seed in range(4):
        tokens, whole = answer(model, grammars.guide(grammar, None), seed)
        text = model.text(tokens).decode()
        assert not whole or re.fullmatch(sentence, text, re.DOTALL), text
        ended += whole
    assert ended >= 2


def test_a_recursive_grammar_is_followed(model: RawModel, grammars: Grammars, written: Written) -> None:
    for seed in range(5):
        tokens, whole = answer(model, grammars.guide(JSON_GBNF, None), seed)
        assert not whole or isinstance(json.loads(model.text(tokens)), dict)
    balanced = 'root ::= pair+\npair ::= "(" pair* ")" | "[" pair* "]"'
    for text, expected in [("()", True), ("([])[()]", True), ("([)]", False), ("(", False), ("", False)]:
        assert written(grammars.guide(balanced, None), text) == expected, text


@pytest.mark.parametrize(("grammar", "why"), REFUSED_GRAMMARS)
def test_a_grammar_is_refused(grammars: Grammars, grammar: str, why: str) -> None:
    grammars.prepare()
    refused = refusal(lambda: grammars.guide(grammar, None))
    assert refused["field"] == "grammar"
    assert why in refused["message"]
    assert len(refused["message"]) < 500


def refusal(make: Callable[[], Guide]) -> dict[str, Any]:
    """The one fault of a refusal that came in time."""
    began_s = time.monotonic()
    with pytest.raises(InvalidRequestError) as refused:
        make()
    assert time.monotonic() - began_s < REFUSED_WITHIN_S
    (fault,) = refused.value.details["errors"]
    found: dict[str, Any] = fault
    return found


# schemas


@pytest.mark.parametrize(("schema", "keys"), REFUSED_SCHEMAS)
def test_a_schema_is_refused(grammars: Grammars, schema: Schema, keys: list[str]) -> None:
    grammars.prepare()
    refused = refusal(lambda: grammars.guide(None, schema))
    assert refused["field"] == "json_schema"
    assert refused["keys"] == keys or (not keys and len(refused["message"]) > 20)
    assert len(refused["message"]) < 500


@pytest.mark.parametrize("schema", HOSTILE_SCHEMAS)
def test_a_hostile_schema_is_refused_or_followed_in_bounded_time(
    grammars: Grammars, row: Row, model: RawModel, schema: Schema
) -> None:
    random = Random(1)
    began_s = time.monotonic()
    try:
        guide = grammars.guide(None, schema)
    except InvalidRequestError:
        return
    for _ in range(50):
        ctypes.memset(row.floats, 0, ctypes.sizeof(row.floats))
        if guide.is_complete or not guide.mask(ctypes.cast(row.floats, ctypes.POINTER(ctypes.c_float))):
            break  # it may be given up, and is not ended then
        allowed = [token for token, logit in enumerate(row.floats) if logit == 0.0 and token not in model.ends]
        if not allowed:
            break
        assert guide.accept(random.choice(allowed))
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(("schema", "valid", "invalid"), ENFORCED_KEYWORDS)
def test_a_keyword_is_enforced(
    grammars: Grammars, written: Written, schema: Schema, valid: list[str], invalid: list[str]
) -> None:
    for text, expected in [*((text, True) for text in valid), *((text, False) for text in invalid)]:
        assert written(grammars.guide(None, schema), text) == expected, text


@pytest.fixture(scope="module")
def checker() -> jsonschema.FormatChecker:
    """jsonschema's own checks, and those that it leaves to packages which are not here."""
    formats = jsonschema.FormatChecker()
    moment = {"date-time": datetime.fromisoformat, "time": daytime.fromisoformat}
    for name, parse in moment.items():
        formats.checks(name, raises=ValueError)(lambda text, parse=parse: parse(text).tzinfo is not None)
    label = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    formats.checks("hostname")(lambda text: bool(re.fullmatch(rf"{label}(\.{label})*", text)) and len(text) <= 253)
    formats.checks("uri")(lambda text: bool(re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]*", text)))
    formats.checks("duration")(lambda text: bool(re.fullmatch(r"P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?", text)))
    return formats


def test_whatever_ends_under_a_schema_validates(
    model: RawModel, grammars: Grammars, checker: jsonschema.FormatChecker
) -> None:
    ended = 0
    for seed in range(200):
        schema = tame_schema(Random(seed))
        tokens, whole = answer(model, grammars.guide(None, schema), seed)
        if whole:
            ended += 1
            validate(model.text(tokens).decode(), schema, checker)
    assert ended >= 120


def test_no_combination_of_keywords_lets_a_wrong_answer_end(
    model: RawModel, grammars: Grammars, row: Row, checker: jsonschema.FormatChecker
) -> None:
    ended = 0
    for seed in range(300):
        random = Random(seed)
        schema = wild_schema(random)
        try:
            guide = grammars.guide(None, schema)
        except InvalidRequestError:
            continue
        text = wander(model, guide, row, random)
        if text is not None:
            ended += 1
            validate(text, schema, checker)
    assert ended >= 100


def validate(text: str, schema: Schema, checker: jsonschema.FormatChecker) -> None:
    try:
        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as error:
        pytest.fail(f"{text} under {json.dumps(schema)}: {error}")


# guides


def test_a_resumed_guide_goes_on_exactly(model: RawModel, grammars: Grammars, row: Row) -> None:
    for seed in range(4):
        schema = tame_schema(Random(seed))
        tokens, _ = answer(model, grammars.guide(None, schema), seed, max_tokens=60)
        original = grammars.guide(None, schema)
        for cut, token in enumerate(tokens):
            resumed = grammars.guide(None, schema)
            assert all(resumed.accept(each) for each in tokens[:cut])
            assert row.allowed(resumed) == row.allowed(original)
            assert (resumed.may_end, resumed.is_complete) == (original.may_end, original.is_complete)
            assert original.accept(token)


def test_a_token_that_may_not_follow_is_refused_and_changes_nothing(
    model: RawModel, grammars: Grammars, row: Row
) -> None:
    guide = grammars.guide(None, WHOLE)
    allowed = row.allowed(guide)
    foreign = set(range(model.n_vocab)) - set(allowed)
    assert foreign
    assert not any(guide.accept(token) for token in [*foreign, -1, model.n_vocab, 2**31 - 1])
    assert row.allowed(guide) == allowed
    assert guide.accept(allowed[0])


def test_guides_of_one_form_do_not_influence_each_other(grammars: Grammars, row: Row, written: Written) -> None:
    one, other = grammars.guide(None, WHOLE), grammars.guide(None, WHOLE)
    at_the_beginning = row.allowed(other)
    assert not written(one, '{"name":"x')
    assert row.allowed(other) == at_the_beginning
    assert row.allowed(one) != at_the_beginning
    assert written(other, '{"name":"y"}')
    assert not one.may_end


def test_the_end_is_allowed_when_the_form_is_whole(
    model: RawModel, grammars: Grammars, row: Row, written: Written
) -> None:
    guide = grammars.guide(None, {"type": "integer", "maximum": 100, "minimum": 1})
    (end,) = model.ends
    assert end not in row.allowed(guide)
    assert not guide.accept(end)
    assert written(guide, "1")
    assert end in row.allowed(guide)
    assert not guide.is_complete
    assert written(guide, "00")
    assert guide.is_complete
    assert row.allowed(guide) == [end]
    assert guide.accept(end)


def test_control_tokens_are_no_text(model: RawModel, grammars: Grammars, row: Row) -> None:
    guide = grammars.guide("root ::= .*", None)
    silent = {token for token in range(model.n_vocab) if not model.text([token])}
    assert len(silent) > len(model.ends)
    assert set(row.allowed(guide)) & silent == model.ends


def test_blanks_do_not_go_on_for_ever(model: RawModel, grammars: Grammars, row: Row) -> None:
    guide = grammars.guide(None, {**WHOLE, "additionalProperties": False})
    text = b""
    while not guide.is_complete:
        allowed = [token for token in row.allowed(guide) if token not in model.ends]
        blank = [token for token in allowed if not model.text([token]).strip()]
        token = (blank or allowed)[0]
        assert guide.accept(token)
        text += model.text([token])
        assert len(text) < 300
    assert json.loads(text).keys() == {"name"}
    assert all(len(blanks) <= 17 for blanks in re.findall(rb"\s+", text.partition(b":")[0]))


def test_a_mask_keeps_the_logits_of_what_is_allowed(model: RawModel, grammars: Grammars, row: Row) -> None:
    guide = grammars.guide('root ::= "yes" | "no"', None)
    allowed = set(row.allowed(guide))
    for token in range(model.n_vocab):
        row.floats[token] = token / 7 - 100
    assert guide.mask(ctypes.cast(row.floats, ctypes.POINTER(ctypes.c_float)))
    for token, logit in enumerate(row.floats):
        assert logit == pytest.approx(token / 7 - 100) if token in allowed else logit == float("-inf")


def test_guides_are_made_in_many_threads_and_used_in_one(model: RawModel, row: Row) -> None:
    grammars = Grammars(model.bindings, model.vocab)  # so that they also meet in its preparation
    made: list[Guide] = []

    def make() -> None:
        made.extend(grammars.guide(None, tame_schema(Random(seed))) for seed in range(20))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 80
    assert all(guide.accept(row.allowed(guide)[0]) for guide in made)


def test_nothing_is_imported_before_the_first_guide() -> None:
    heavy = "{name for name in ('numpy', 'llguidance', 'llama_cpp.llama') if name in sys.modules}"
    program = f"""
import sys
from pathlib import Path
from tests.support.raw_llama import raw_model
from llm_worker_rbee.engine.grammar import Grammars
with raw_model(Path({str(MODEL)!r}), n_ctx=64) as model:
    grammars = Grammars(model.bindings, model.vocab)
    print(sorted({heavy}))
    grammars.guide('root ::= "a"', None)
    print(sorted({heavy}))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    before, after = ran.stdout.splitlines()
    assert "numpy" not in before or "numpy" in _imported_by_the_bindings()
    assert "llguidance" not in before
    assert "llguidance" in after
    assert "llama_cpp.llama'" not in after


def _imported_by_the_bindings() -> str:
    program = (
        "import sys; from llm_worker_rbee.engine.library import load_bindings; load_bindings(); print(*sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout
